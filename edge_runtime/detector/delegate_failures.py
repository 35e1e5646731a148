"""What the failures of delegate libraries mean, and what to do about each.

The texts are those of the dynamic linker, of TFLite's interpreter and of libedgetpu, and how a
process ended. The first one that is found explains.
"""

CAUSES = (
    (
        "edgetpu-custom-op",
        "the model was compiled for a Coral, and this library does not run it; "
        "give --delegate libedgetpu.so.1",
    ),
    (
        "cannot open shared object file",
        "install that library (a Coral's is in the package libedgetpu1-std), or give its path",
    ),
    (
        "undefined symbol: tflite_plugin",
        "this library is no TFLite delegate; give the delegate's own",
    ),
    (
        "ELF",
        "the library is for another processor, or damaged; install the one for this machine",
    ),
    (
        "Failed to load delegate",
        "no device answers: is it plugged in (lsusb shows 1a6e:089a or 18d1:9302; a PCIe one is "
        "/dev/apex_0), may this user use it (group plugdev or apex), and does no other program "
        "hold it?",
    ),
    (
        "delegate application failure",
        "the delegate refuses this model; a Coral wants the compiled one, --delegate-model",
    ),
    (
        "SIGSEGV",
        "a libedgetpu that was built for another TFLite ends so, as Coral's own does with "
        "tflite-runtime 2.12 and later (google-coral/edgetpu#812); install one built for yours",
    ),
    (
        "SIGABRT",
        "libedgetpu aborts when its device stops answering; check plug, cable and power",
    ),
)


def explained(text: str) -> str:
    """`text` as one line, with what to do about it where that is known and not said already."""
    line = " ".join(text.split())
    advice = next((advice for cause, advice in CAUSES if cause in line), "")
    return line if advice in line else f"{line}; {advice}"
