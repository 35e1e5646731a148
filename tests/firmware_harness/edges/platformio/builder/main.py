"""A build for the emulated board by PlatformIO, without any option that keeps the bits."""

from SCons.Script import Default, DefaultEnvironment

CPU = ["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]
env = DefaultEnvironment()
env.Replace(
    AR="arm-none-eabi-ar", CC="arm-none-eabi-gcc", CXX="arm-none-eabi-g++", LINK="$CC",
    RANLIB="arm-none-eabi-ranlib", ARFLAGS=["rc"], PROGNAME="firmware", PROGSUFFIX=".elf",
)  # fmt: skip
env.Append(
    CCFLAGS=[*CPU, "-Os", "-ffunction-sections"],
    CXXFLAGS=["-fno-exceptions", "-fno-rtti"],
    LINKFLAGS=[
        *CPU, "-specs=nano.specs", "-specs=nosys.specs", "-nostartfiles", "-Wl,--gc-sections",
    ],
    LIBS=["m"],
)  # fmt: skip
Default(env.BuildProgram())
