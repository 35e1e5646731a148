/* Files of the debugger's machine, which an emulated board accesses through a breakpoint (Arm's
 * semihosting, which RISC-V has too). Every error ends the program.
 */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stddef.h>
#include <stdint.h>

enum { HOST_OPEN = 1, HOST_CLOSE = 2, HOST_WRITE = 5, HOST_READ = 6, HOST_EXIT = 0x20 };
enum { HOST_TO_READ = 1, HOST_TO_WRITE = 5, HOST_BROKEN = 63 };
#define HOST_STOPPED 0x20026u

#ifdef __riscv
/* The three instructions of a call lie within one page. */
static inline int32_t host_call(uint32_t operation, volatile void *arguments) {
    register uint32_t a0 __asm("a0") = operation;
    register volatile void *a1 __asm("a1") = arguments;
    __asm volatile(".option push\n"
                   ".option norvc\n"
                   ".balign 16\n"
                   "slli zero, zero, 0x1f\n"
                   "ebreak\n"
                   "srai zero, zero, 7\n"
                   ".option pop\n"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
    return (int32_t)a0;
}
#else
static inline int32_t host_call(uint32_t operation, volatile void *arguments) {
    register uint32_t r0 __asm("r0") = operation;
    register volatile void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}
#endif

/* End the emulator with this exit code. */
__attribute__((noreturn)) static inline void host_leave(uint32_t code) {
    volatile uint32_t arguments[2] = {HOST_STOPPED, code};
    for (;;) host_call(HOST_EXIT, arguments);
}

static inline uint32_t host_open(const char *name, uint32_t mode) {
    uint32_t length = 0;
    while (name[length]) length++;
    volatile uint32_t arguments[3] = {(uint32_t)name, mode, length};
    const int32_t handle = host_call(HOST_OPEN, arguments);
    if (handle < 0) host_leave(HOST_BROKEN);
    return (uint32_t)handle;
}

/* Returns the number of bytes read. */
static inline size_t host_read(uint32_t handle, void *data, size_t size) {
    volatile uint32_t arguments[3] = {handle, (uint32_t)data, size};
    return size - (size_t)host_call(HOST_READ, arguments);
}

static inline void host_write(uint32_t handle, const void *data, size_t size) {
    volatile uint32_t arguments[3] = {handle, (uint32_t)data, size};
    if (host_call(HOST_WRITE, arguments)) host_leave(HOST_BROKEN);
}

#endif
