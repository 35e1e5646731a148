"""`gruard service` without systemd: what is refused, what is written, what is left alone.

The unit under a real systemd is in tests/service.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.commands.main import gruard
from edge_runtime.errors import GruardError
from edge_runtime.service import units
from edge_runtime.service.request import devices_in, groups_of, watchdog_seconds
from edge_runtime.updates.store import Store

BUNDLE = "/var/lib/gruard/tiny-1.gruard"
READER = ("--reader", "/usr/bin/python3 -u /opt/reader.py")
OWN = "/var/lib/gruard/tiny"
STREAM = (BUNDLE, "--source", "-")
UNITS = "etc/systemd/system"
SETTINGS = f"{UNITS}/gruard@tiny.service.d/gruard.conf"
TEMPLATE = f"{UNITS}/gruard@.service"
FROM_STORE = ("--store", OWN, "--source", "-")


@pytest.fixture
def image(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A device's file system as a folder, the bundle in its place."""
    root = tmp_path / "image"
    shutil.copytree(tiny_bundle, root / BUNDLE[1:])
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    return root


def service(*words: str) -> Result:
    return CliRunner().invoke(gruard, ["service", *words])


def install(image: Path, *options: str, words: tuple[str, ...] = STREAM) -> Result:
    return service("install", "--root", str(image), *options, "--", *words)


def refused(result: Result) -> str:
    assert isinstance(result.exception, GruardError), result.output
    assert result.stdout == ""
    return str(result.exception)


def unit(image: Path, *options: str, words: tuple[str, ...] = STREAM) -> str:
    """What a dry run prints: the template, then what is the instance's own."""
    options = (*options, *READER) if "-" in words else options
    made = install(image, "--dry-run", *options, words=words)
    assert made.exit_code == 0, made.exception
    return made.stdout


def test_a_named_pipe_in_place_of_a_unit_is_refused_without_waiting(tmp_path: Path) -> None:
    file = tmp_path / SETTINGS
    file.parent.mkdir(parents=True)
    os.mkfifo(file)
    done = service("show", "--root", str(tmp_path), "tiny")
    assert refused(done) == f"{file}: is a named pipe, not a file; remove it"


def lines(text: str, key: str) -> list[str]:
    """What systemd makes of a key: in lists an empty value forgets those before it."""
    found = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]
    last_empty = max((at for at, value in enumerate(found) if not value), default=-1)
    return found[last_empty + 1 :]


def test_a_whole_life_in_an_image(image: Path) -> None:
    made = install(image, *READER, "--python", "/opt/gruard/bin/python")
    settings, template = image / SETTINGS, image / TEMPLATE
    assert made.exit_code == 0 and made.stdout.splitlines() == [
        f"written: {settings}",
        f"written: {template}",
        "systemd does not run here; on the device: systemctl enable --now gruard@tiny.service",
    ]
    for file in (settings, template):
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in settings.parent.iterdir()] == [settings.name]
    assert template.read_bytes() == units.TEMPLATE.read_bytes()
    told = service("show", "--root", str(image), "tiny").stdout
    assert told == f"# {template}\n{template.read_text()}\n# {settings}\n{settings.read_text()}"
    gone = service("uninstall", "--root", str(image), "tiny")
    assert gone.exit_code == 0 and "/var/lib/gruard/tiny" in gone.stdout
    assert list((image / UNITS).iterdir()) == [] and (image / BUNDLE[1:]).is_dir()


def test_every_file_says_who_wrote_it(image: Path) -> None:
    assert install(image, *READER).exit_code == 0
    for file in (image / SETTINGS, image / TEMPLATE):
        assert file.read_text().startswith(units.BEGINNINGS[file.name])


def test_the_template_stays_for_the_other_services(image: Path) -> None:
    for name in ("tiny", "other"):
        assert install(image, "--name", name, *READER).exit_code == 0
    assert "gruard@.service" not in service("uninstall", "--root", str(image), "other").stdout
    assert (image / TEMPLATE).is_file() and (image / SETTINGS).is_file()
    assert (
        f"removed: {image / TEMPLATE}"
        in service("uninstall", "--root", str(image), "tiny").stdout.splitlines()
    )


def test_settings_of_the_users_own_stay(image: Path) -> None:
    assert install(image, *READER).exit_code == 0
    override = (image / SETTINGS).with_name("override.conf")
    override.write_text("[Service]\nNice=5\n")
    assert service("uninstall", "--root", str(image), "tiny").exit_code == 0
    assert list(override.parent.iterdir()) == [override] and (image / TEMPLATE).is_file()


def test_a_dry_run_writes_nothing(image: Path) -> None:
    assert unit(image).startswith(f"# {image / TEMPLATE}\n{units.BEGINNINGS['gruard@.service']}")
    assert not (image / "etc").exists()


@pytest.fixture
def analyze() -> str:
    """systemd's own reader of units."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("NOT CHECKED by systemd itself: systemd-analyze is missing (package systemd)")
    return program


VARIANTS: "dict[str, tuple[str, ...]]" = {
    "closed": (),
    "device": ("--device", "/dev/ttyUSB0", "--group", "dialout"),
    "network": ("--network", "--memory", "1G", "--watchdog-sec", "90"),
    "reboot": ("--on-start-limit", "reboot"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_systemd_reads_every_line(image: Path, analyze: str, variant: str) -> None:
    assert install(image, *VARIANTS[variant], *READER).exit_code == 0
    done = verified(analyze, image)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_a_line_that_it_does_not_know(image: Path, analyze: str) -> None:
    assert install(image, *READER).exit_code == 0
    with (image / SETTINGS).open("a") as file:
        file.write("ProtectHomes=yes\n")
    assert "ProtectHomes" in verified(analyze, image).stderr


def verified(analyze: str, image: Path) -> "subprocess.CompletedProcess[str]":
    """`systemd-analyze verify` of the instance, which finds its template and settings by itself."""
    words = [analyze, "verify", "--man=no", "gruard@tiny.service"]
    seen = {**os.environ, "SYSTEMD_UNIT_PATH": f"{image / UNITS}:/usr/lib/systemd/system"}
    return subprocess.run(words, env=seen, capture_output=True, text=True, check=False)


def test_systemd_finds_little_that_the_template_exposes(image: Path, analyze: str) -> None:
    """The whole unit in one file, as systemd-analyze merges no settings of an instance offline."""
    file = image / "gruard-whole.service"
    for limit, option in ((5, ()), (20, ("--network", "--device", "/dev/ttyS0"))):
        file.write_text(unit(image, *option))
        words = [analyze, "security", "--offline=yes", f"--threshold={limit}", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    words[3] = "--threshold=5"
    assert subprocess.run(words, capture_output=True, check=False).returncode == 1


LEARN = ("--learn", "24h", "--source", "-")


def test_a_run_that_learns_needs_no_bundle_but_a_name_memory_and_its_low_priority(
    image: Path,
) -> None:
    made = unit(image, "--name", "tiny", words=LEARN)
    assert lines(made, "MemoryMax")[-1] == "800M"
    assert lines(made, "SystemCallFilter")[-1] == "setpriority sched_setscheduler"
    assert "--learn 24h" in lines(made, "ExecStart")[-1]
    assert (
        lines(unit(image, "--name", "tiny", "--memory", "1G", words=LEARN), "MemoryMax")[-1] == "1G"
    )
    assert lines(unit(image), "MemoryMax") == ["256M"]
    assert "add --name NAME" in refused(install(image, *READER, words=LEARN))


def test_the_samples_of_a_run_that_learns_may_be_hours_apart(image: Path) -> None:
    made = unit(image, "--name", "tiny", words=(*LEARN, "--period", "60"))
    assert lines(made, "WatchdogSec")[-1] == "180"


def test_a_run_that_learns_keeps_to_its_folder_and_goes_without_keys(image: Path) -> None:
    elsewhere = install(image, "--name", "tiny", *READER, words=(*LEARN, "--store", "/srv/pump"))
    assert "may write below /var/lib/gruard/tiny only" in refused(elsewhere)
    below = ("--name", "tiny", *READER)
    assert install(image, *below, words=(*LEARN, "--store", f"{OWN}/store")).exit_code == 0
    signed = install(image, "--name", "tiny", words=(*LEARN, "--trusted-key", "/plant.pub"))
    assert signed.exit_code == 2 and "has no signature" in signed.output


def test_systemd_reads_the_unit_of_a_run_that_learns(image: Path, analyze: str) -> None:
    assert install(image, "--name", "tiny", *READER, words=LEARN).exit_code == 0
    done = verified(analyze, image)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_reader_runs_beside_gruard_which_stays_the_main_process(image: Path) -> None:
    (line,) = lines(
        unit(image, "--python", "/opt/py", words=(*STREAM, "--deadline", "3")), "ExecStart"
    )
    assert line == (
        f':/bin/bash -c "exec /opt/py -m edge_runtime run {BUNDLE} --source - --deadline 3 '
        '< <(exec /usr/bin/python3 -u /opt/reader.py)"'
    )


def test_a_source_of_its_own_needs_no_shell(image: Path) -> None:
    made = unit(image, "--python", "/opt/py", words=(BUNDLE, "--source", "serial:/dev/ttyUSB0"))
    assert lines(made, "ExecStart") == [
        f":/opt/py -m edge_runtime run {BUNDLE} --source serial:/dev/ttyUSB0"
    ]
    assert lines(made, "DeviceAllow") == ["/dev/ttyUSB0 rw"]
    assert lines(made, "PrivateDevices")[-1] == "no" and lines(made, "DevicePolicy") == ["closed"]


def test_what_is_not_needed_is_closed(image: Path) -> None:
    made = unit(image)
    for key in ("PrivateDevices", "PrivateNetwork", "PrivateUsers", "ProtectHome", "DynamicUser"):
        assert lines(made, key) == ["yes"]
    assert lines(made, "IPAddressDeny") == ["any"]
    assert lines(made, "RestrictAddressFamilies") == ["AF_UNIX"]
    assert lines(made, "MemoryDenyWriteExecute") == ["yes"]
    open_one = unit(image, "--network", "--group", "i2c", "--device", "/dev/i2c-1")
    assert lines(open_one, "RestrictAddressFamilies") == ["AF_UNIX", "AF_INET AF_INET6"]
    assert lines(open_one, "SupplementaryGroups") == ["i2c"]
    assert lines(open_one, "DeviceAllow") == ["/dev/i2c-1 rw"]
    for key in ("PrivateNetwork", "PrivateDevices", "PrivateUsers"):
        assert lines(open_one, key)[-1] == "no"
    assert lines(open_one, "IPAddressDeny") == []
    assert lines(open_one, "Wants") == lines(open_one, "After") == ["network-online.target"]


def test_another_arithmetic_may_make_code(image: Path) -> None:
    for kernel in ("tflite-builtin", "core-c"):
        made = unit(image, words=(*STREAM, "--kernel", kernel))
        assert lines(made, "MemoryDenyWriteExecute") == ["yes"] and f"--kernel {kernel}" in made
    for option, value in (("--kernel", "tflite-xnnpack"), ("--delegate", "libedgetpu.so.1")):
        made = unit(image, words=(*STREAM, option, value))
        assert lines(made, "MemoryDenyWriteExecute")[-1] == "no"


def test_start_limit(image: Path) -> None:
    patient, strict = unit(image), unit(image, "--on-start-limit", "reboot")
    assert lines(patient, "StartLimitIntervalSec") == ["0"]
    assert "StartLimitAction" not in patient
    assert lines(strict, "StartLimitAction") == ["reboot"]
    assert lines(strict, "StartLimitBurst") == ["4"]
    assert lines(strict, "StartLimitIntervalSec")[-1] == "600"
    assert lines(strict, "RestartPreventExitStatus") == ["2"]


def test_the_watchdog_waits_for_slow_sensors(image: Path) -> None:
    assert watchdog_seconds(None, 0.02) == watchdog_seconds(None, None) == 30
    assert watchdog_seconds(None, 60.5) == 182
    assert watchdog_seconds(5, 60.5) == 5
    assert lines(unit(image), "WatchdogSec")[-1] == "30"
    assert lines(unit(image, "--watchdog-sec", "45"), "WatchdogSec")[-1] == "45"


def test_the_memory_is_the_templates_unless_told(image: Path) -> None:
    assert lines(unit(image), "MemoryMax") == ["256M"]
    assert lines(unit(image, "--memory", "1G"), "MemoryMax")[-1] == "1G"


def test_a_recording_is_played_once(image: Path) -> None:
    (image / "data.csv").write_text("a\n1\n")
    recording = unit(image, words=(BUNDLE, "--source", "/data.csv"))
    assert lines(recording, "Restart")[-1] == "on-failure"
    assert lines(unit(image), "Restart") == ["always"]


def test_the_keys_of_the_environment_are_insisted_on(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRUARD_TRUSTED_KEYS", "/etc/gruard/ours.pub")
    assert "no such file" in refused(install(image, *READER))
    (image / "etc" / "gruard").mkdir(parents=True)
    (image / "etc" / "gruard" / "ours.pub").write_text("no key\n")
    monkeypatch.setattr("edge_runtime.service.request.read_bundle", _unsigned)
    assert "--trusted-key /etc/gruard/ours.pub" in unit(image)


def _unsigned(path: Path, allow_failed: bool, keys: object) -> object:
    from edge_runtime.bundle.reader import read_bundle

    return read_bundle(path, allow_failed)


def below_home(image: Path) -> str:
    home = image / "home" / "pi"
    home.mkdir(parents=True)
    home.chmod(0o700)
    shutil.move(image / BUNDLE[1:], home)
    return "/home/pi/tiny-1.gruard"


def test_of_a_home_only_what_is_needed_is_shown(image: Path) -> None:
    bundle = below_home(image)
    made = unit(image, words=(bundle, "--source", "-"))
    assert lines(made, "ProtectHome")[-1] == "tmpfs"
    assert lines(made, "BindReadOnlyPaths") == [bundle]
    (image / "home/pi/tiny-1.thresholds.json").write_text("{}")
    assert len(lines(unit(image, words=(bundle, "--source", "-")), "BindReadOnlyPaths")) == 2


WRONG: "dict[str, tuple[tuple[str, ...], tuple[str, ...]]]" = {
    "give the whole path": ((), ("tiny-1.gruard", "--source", "-")),
    "/no.gruard: no such file or bundle": (READER, ("/no.gruard", "--source", "-")),
    "no such file": ((), (BUNDLE, "--source", "/no.csv")),
    "data.csv: a service starts in no folder": ((), (BUNDLE, "--source", "data.csv")),
    "lib.so: a service starts": (READER, (*STREAM, "--delegate", "./lib.so")),
    "/m.tflite: no such file": (
        READER, (*STREAM, "--delegate", "lib.so", "--delegate-model", "/m.tflite")
    ),
    "a service has no stdin": ((), STREAM),
    "--reader is for": (READER, (BUNDLE, "--source", "serial:/dev/ttyS0")),
    "python3: a service starts": (("--reader", "python3 x.py"), STREAM),
    "may write below /var/lib/gruard/tiny only": (READER, (*STREAM, "--sink", "/tmp/out")),
    "/var/lib/gruard/tiny/../x: this service": (
        READER, (*STREAM, "--sink", "/var/lib/gruard/tiny/../x")
    ),
    "--force would empty the sink": (READER, (*STREAM, "--sink", f"{OWN}/out", "--force")),
    "leave them away": (READER, (*STREAM, "--watchdog", "/dev/watchdog")),
    "--watchdog, --state, --status": (READER, (*STREAM, "--state", "/var/lib/gruard/tiny")),
    "--status: systemd watches": (READER, (*STREAM, "--status", "/run/x.json")),
    "/var/journal: this service may": (READER, (*STREAM, "--journal", "/var/journal")),
    "modbus:// and --metrics": (READER, (*STREAM, "--sink", "mqtt://host/topic")),
    "mqtt://, modbus://": ((), (BUNDLE, "--source", "modbus://host/1?registers=a:holding:1")),
    "own.py: a service starts": ((), (BUNDLE, "--source", "python:own.py")),
    "/own.py: no such file": ((), (BUNDLE, "--source", "python:/own.py")),
    "would read what --sink": (
        (), (BUNDLE, "--source", "mqtt://h/t", "--sink", "mqtt://h/t")
    ),
    "need the network": (READER, (*STREAM, "--metrics", "9100")),
    "a service needs a BUNDLE, or --store": (READER, ("--source", "-")),
    "no bundle is installed there": (READER, ("--store", OWN, "--source", "-")),
    "store: a service starts in no folder": (READER, ("--store", "store", "--source", "-")),
    "--name Pump": (("--name", "Pump", *READER), STREAM),
    "--name a/b": (("--name", "a/b", *READER), STREAM),
    "--memory lots": (("--memory", "lots", *READER), STREAM),
    "--memory : write": (("--memory", "", *READER), STREAM),
    "--device ttyUSB0": (("--device", "ttyUSB0", *READER), STREAM),
    "--group a b": (("--group", "a b", *READER), STREAM),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_could_not_run_is_refused(image: Path, message: str) -> None:
    options, words = WRONG[message]
    assert message in refused(install(image, *options, words=words))
    assert not (image / "etc").exists()


def test_a_sink_in_its_own_folder_goes_on_after_a_restart(image: Path) -> None:
    sink = (*STREAM, "--sink", f"{OWN}/out.jsonl")
    for words in (sink, (*sink, "--append")):
        (line,) = lines(unit(image, words=words), "ExecStart")
        assert line.count("--append") == 1
    assert "--append" not in unit(image, words=(*STREAM, "--journal", f"{OWN}/journal"))


def installed_in(store: Path, tiny_bundle: Path) -> None:
    Store(store).install(read_bundle(tiny_bundle))


@pytest.mark.parametrize("store", [OWN, f"{OWN}/bundles"])
def test_a_store_in_its_own_folder(image: Path, tiny_bundle: Path, store: str) -> None:
    words = ("--store", store, "--source", "-")
    installed_in(image / store[1:], tiny_bundle)
    made = unit(image, "--python", "/opt/py", words=words)
    assert f"/opt/py -m edge_runtime run --store {store} --source - <" in made
    assert "gruard@tiny.service.d" in made  # after the store's current bundle


def test_a_store_elsewhere_is_refused(image: Path, tiny_bundle: Path) -> None:
    installed_in(image / OWN[1:], tiny_bundle)
    told = refused(install(image, "--name", "pump", *READER, words=FROM_STORE))
    assert "may write below /var/lib/gruard/pump only" in told
    both = install(image, *READER, words=(BUNDLE, *FROM_STORE))
    assert both.exit_code == 2 and "not both" in both.output


def test_a_store_of_the_installers_environment_is_not_the_services(
    image: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_in(image / OWN[1:], tiny_bundle)
    monkeypatch.setenv("GRUARD_STORE", OWN)
    assert "a service needs a BUNDLE" in refused(install(image, *READER, words=("--source", "-")))
    assert "--store" not in unit(image)


def test_passwords_are_for_systemd_to_read(image: Path) -> None:
    assert lines(unit(image), "EnvironmentFile") == ["-/etc/gruard/%i.env"]


def test_a_broker_is_allowed_with_the_network(image: Path) -> None:
    assert unit(image, "--network", words=(*STREAM, "--sink", "mqtt://host/topic"))


def test_a_wrong_argument_of_run_is_a_usage_error(image: Path) -> None:
    result = install(image, *READER, words=(*STREAM, "--no-such-option"))
    assert result.exit_code == 2 and "No such option" in result.output
    assert install(image, "--reader", "a 'b", words=STREAM).exit_code == 2


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda bundle: (bundle / "manifest.json").chmod(0o640), "chmod -R a+rX"),
        (lambda bundle: bundle.chmod(0o750), "chmod -R a+rX"),
        (lambda bundle: bundle.parent.chmod(0o750), "cannot pass /var/lib/gruard"),
        (lambda bundle: (bundle / "model.tflite").write_bytes(b"junk"), "tiny-1.gruard"),
    ],
)
def test_a_bundle_that_the_service_could_not_use(
    image: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(image / BUNDLE[1:])
    assert message in refused(install(image, *READER))


def test_other_settings_are_replaced_on_demand_only(image: Path) -> None:
    file = image / SETTINGS
    assert install(image, *READER).exit_code == 0
    assert install(image, *READER).exit_code == 0  # the same again
    before = file.read_text()
    assert "--force replaces it" in refused(install(image, *READER, "--network"))
    assert file.read_text() == before
    assert install(image, *READER, "--network", "--force").exit_code == 0
    assert file.read_text() != before


def test_an_edited_template_is_replaced_on_demand_only(image: Path) -> None:
    assert install(image, *READER).exit_code == 0
    file = image / TEMPLATE
    file.write_text(file.read_text().replace("256M", "300M"))
    told = refused(install(image, "--name", "other", *READER))
    assert str(file) in told and "--force replaces it" in told
    assert not list((image / UNITS).glob("gruard@other*"))
    assert install(image, "--name", "other", *READER, "--force").exit_code == 0
    assert file.read_bytes() == units.TEMPLATE.read_bytes()


@pytest.mark.parametrize("place", [SETTINGS, TEMPLATE])
def test_files_of_somebody_else_are_left_alone(image: Path, place: str) -> None:
    assert install(image, *READER).exit_code == 0
    (image / place).write_text("[Service]\nExecStart=/bin/true\n")
    before = {file: file.read_text() for file in (image / SETTINGS, image / TEMPLATE)}
    for result in (
        install(image, *READER, "--force"),
        service("uninstall", "--root", str(image), "tiny"),
        service("show", "--root", str(image), "tiny"),
    ):
        assert f"{image / place}: was not written by gruard" in refused(result)
    assert before == {file: file.read_text() for file in before}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("failing", [0, 1])
def test_a_full_disk_leaves_what_was_there(
    image: Path, monkeypatch: pytest.MonkeyPatch, failing: int, force: bool
) -> None:
    """The first or the second file fails; nothing is left of a new service, all of an old one."""
    if force:
        assert install(image, *READER, "--memory", "1G").exit_code == 0
    files = (image / SETTINGS, image / TEMPLATE)
    before = [file.exists() and file.read_text() for file in files]
    left, real = [failing], units.replace_file

    def full(file: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(28, "No space left on device")
        real(file, data)

    monkeypatch.setattr(units, "replace_file", full)
    told = refused(install(image, *READER, *["--force"] * force))
    assert told == f"{files[failing]}: cannot be written (No space left on device); try sudo"
    assert [file.exists() and file.read_text() for file in files] == before
    assert files[0].parent.exists() == force


def test_what_is_not_there_cannot_be_removed(image: Path) -> None:
    assert "there is no service pump" in refused(service("uninstall", "--root", str(image), "pump"))
    assert "--name ../x" in refused(service("uninstall", "--root", str(image), "../x"))


def test_a_unit_that_cannot_be_written(image: Path) -> None:
    (image / "etc").write_text("a file in the folder's place")
    assert "cannot be written" in refused(install(image, *READER))


def test_a_python_without_gruard_is_refused(tiny_bundle: Path) -> None:
    for python in ("/bin/false", "/no/python"):
        words = ("--python", python, *READER, "--", str(tiny_bundle), "--source", "-")
        told = refused(service("install", "--dry-run", *words))
        assert "gruard is not installed for it" in told or "the service cannot" in told


def test_devices_are_found_within_words() -> None:
    words = [
        "serial:/dev/ttyUSB0,115200",
        "--x=/dev/i2c-1:0x48",
        "/dev/ttyUSB0",
        "/data/dev/x",
        "-",
    ]
    assert devices_in(words) == ("/dev/ttyUSB0", "/dev/i2c-1")


def test_groups_are_those_that_may_open_the_device(tmp_path: Path) -> None:
    device = tmp_path / "tty"
    device.touch(mode=0o660)
    device.chmod(0o660)
    if os.geteuid() == 0:
        os.chown(device, 0, 1)
        assert groups_of([str(device), str(tmp_path / "gone")]) == (device.group(),)
    device.chmod(0o666)
    assert groups_of([str(device)]) == ()


def test_systemctl_tells_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program.write_text("#!/bin/sh\necho Unit x not found. >&2\nexit 5\n")
    program.chmod(0o755)
    with pytest.raises(GruardError, match=r"systemctl start x: Unit x not found\."):
        units.systemctl("start", "x")
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GruardError, match="cannot be run"):
        units.systemctl("start", "x")


RECORD = ("record", "--source", "modbus://h/1?registers=a:holding:1:int16", "--period", "1")


def test_a_recording_is_a_service_without_a_bundle(image: Path) -> None:
    own = "/var/lib/gruard/plc"
    words = (*RECORD, "--out", f"{own}/readings")
    made = unit(image, "--name", "plc", "--network", "--python", "/opt/python", words=words)
    (start,) = lines(made, "ExecStart")
    assert start.startswith(":/opt/python -m edge_runtime record --source ")
    assert lines(made, "WatchdogSec")[-1] == "30" and "gruard@plc.service.d" in made
    for options, given, told in (
        (("--network",), words, "add --name NAME"),
        (("--name", "plc"), words, "need the network"),
        (("--name", "plc", "--network"), (*RECORD, "--out", "/tmp/x"), f"below {own} only"),
    ):
        assert told in refused(install(image, *options, words=given))


def test_kept_readings_lie_below_the_folder_of_the_service(image: Path) -> None:
    words = (*STREAM, "--keep-readings")
    assert "below" in refused(install(image, *READER, words=(*words, "/var/readings")))
    assert f"{OWN}/readings" in unit(image, words=(*words, f"{OWN}/readings"))
