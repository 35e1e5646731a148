"""A sysfs tree of an IIO device as the kernel's mpu6050 driver lays it out, in a folder."""

from pathlib import Path

ATTRIBUTES = {
    "name": "mpu6050",
    "in_accel_scale": "0.000598",
    "in_accel_x_raw": "-612",
    "in_accel_y_raw": "1000",
    "in_anglvel_z_raw": "4",
    "in_anglvel_z_scale": "0.5",
    "in_temp_offset": "12420",
    "in_temp_raw": "-4420",
    "in_temp_scale": "2.941176",
    "in_voltage0_raw": "100",
    "in_voltage_scale": "0.25",
    "in_pressure_input": "101.325",
}
SCAN = {
    "accel_x": (0, "be:s16/16>>0"),
    "accel_y": (1, "be:s16/16>>0"),
    "temp": (3, "be:s16/16>>0"),
    "timestamp": (7, "le:s64/64>>0"),
}


def make_device(root: Path, number: int = 0) -> Path:
    """The device's folder; all of its scan elements but accel_y are enabled."""
    device = root / f"iio:device{number}"
    scan = device / "scan_elements"
    scan.mkdir(parents=True)
    for name, text in ATTRIBUTES.items():
        (device / name).write_text(text + "\n")
    for element, (index, kind) in SCAN.items():
        (scan / f"in_{element}_en").write_text("0\n" if element == "accel_y" else "1\n")
        (scan / f"in_{element}_index").write_text(f"{index}\n")
        (scan / f"in_{element}_type").write_text(kind + "\n")
    return device
