"""The unit of `gruard service install` under a real systemd: started, watched, harmed, rebooted."""

import json
import re

import pytest
from booted import Booted, until
from tiny_service import (
    BUNDLE,
    READER,
    UNIT,
    WATCHDOG,
    install,
    kill_main,
    not_lasted,
    records,
    restarts,
    sample,
    status,
    worker,
)

from edge_runtime.service.units import command_line

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def installed(systemd: Booted) -> Booted:
    """The service of the tiny bundle, running."""
    assert "started: systemctl status" in install(systemd)
    return systemd


def test_it_starts_is_ready_and_tells_where_it_is(installed: Booted) -> None:
    assert installed.property(UNIT, "ActiveState") == "active"
    until(lambda: sample(installed) >= 1, "the second sample")
    assert "no alarm" in status(installed)
    journal = installed.journal(UNIT)
    assert "model loaded" in journal and "first start with the state folder" in journal
    assert records(installed)[0]["flags"] == ["WARMUP", "FALLBACK"]  # so says the model
    assert installed("systemctl", "is-enabled", UNIT) == "enabled\n"
    status_file = "/run/gruard/tiny/status.json"
    told = installed.run("python3", "-m", "edge_runtime", "status", "--json", status_file)
    assert json.loads(told.stdout)["snapshot"]["counts"]["started_after"] == "first start", (
        told.stderr
    )


def test_it_is_locked_in(installed: Booted) -> None:
    main = installed.property(UNIT, "MainPID")
    for pid in (main, worker(installed)):
        facts = dict(
            line.split(":\t", 1) for line in installed("cat", f"/proc/{pid}/status").splitlines()
        )
        assert facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2"
        assert int(facts["CapBnd"], 16) == int(facts["CapAmb"], 16) == 0
        assert all(int(uid) >= 61184 for uid in facts["Uid"].split())  # a dynamic user
        seen = installed("ls", f"/proc/{pid}/root/dev").split()
        assert "null" in seen and "kmsg" not in seen and "mem" not in seen


def exposure(system: Booted, unit: str) -> float:
    """What `systemd-analyze security` says: 0 is best, 10 worst."""
    told = system("systemd-analyze", "security", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found
    print("\nsystemd-analyze security:", found[0])
    return float(found[1])


def test_systemd_finds_little_that_is_exposed(installed: Booted) -> None:
    assert exposure(installed, UNIT) <= 0.5
    options = ("--name", "open", "--network", "--device", "/dev/ttyUSB0", "--group", "dialout")
    words = (*options, "--no-start", *READER, "--", BUNDLE, "--source", "-")
    installed.gruard("service", "install", *words)
    installed("systemctl", "daemon-reload")
    assert 0.5 < exposure(installed, "gruard@open.service") <= 2.0
    installed.gruard("service", "uninstall", "open")


def test_completed_samples_keep_it_alive(installed: Booted) -> None:
    first = sample(installed)
    until(lambda: sample(installed) > first + 2 * int(WATCHDOG), "two watchdog periods")
    assert restarts(installed) == 0


def test_a_hanging_worker_is_the_supervisors_affair(installed: Booted) -> None:
    main = installed.property(UNIT, "MainPID")
    installed("bash", "-c", f"kill -STOP {worker(installed)}")
    until(lambda: any("LATE" in record["flags"] for record in records(installed)), "the fallback")
    assert restarts(installed) == 0 and installed.property(UNIT, "MainPID") == main


def test_a_hanging_supervisor_is_restarted_by_the_watchdog(installed: Booted) -> None:
    installed("systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT)
    until(lambda: restarts(installed) == 1, "the watchdog")
    until(lambda: "started after crash" in status(installed), "the second life")
    journal = installed.journal(UNIT)
    assert "Watchdog timeout" in journal and "started after: crash" in journal


def test_a_stop_is_a_good_end(installed: Booted) -> None:
    installed("systemctl", "stop", UNIT)
    assert installed.property(UNIT, "Result") == "success"
    assert installed.property(UNIT, "ExecMainStatus") == "0"
    installed("systemctl", "start", UNIT)
    assert "started after: clean stop" in installed.journal(UNIT)


def test_it_always_comes_back_and_waits_longer_each_time(installed: Booted) -> None:
    for failed in (1, 2, 3):
        until(lambda failed=failed: not_lasted(installed) == failed, "the start to be counted")
        kill_main(installed)
    until(lambda: "waits" in status(installed), "the wait of the fourth life")
    assert "the last 3 starts did not last 10 minutes" in status(installed)
    assert installed.property(UNIT, "ActiveState") == "activating"
    installed("systemctl", "restart", UNIT)  # whoever mended it need not wait
    until(lambda: sample(installed) >= 1, "the fifth life")
    assert "this one waits 30 s" in installed.journal(UNIT)


def test_a_start_may_take_as_long_as_it_asks_for(systemd: Booted) -> None:
    """What an hour of waiting rests on: three time-outs of the start, each put off in time."""
    words = "import os, time; from edge_runtime.supervision.liveness import Notifier; "
    words += "it = Notifier(os.environ, time.monotonic); "
    words += "[(it.delay('waits', 6), time.sleep(2)) for _ in range(9)]; it.ready('up'); "
    words += "time.sleep(1000)"
    line = command_line(["/usr/bin/python3", "-c", words])
    unit = f"[Service]\nType=notify\nTimeoutStartSec=6\nExecStart={line}\n"
    systemd.write("/run/systemd/system/slow.service", unit)
    systemd("systemctl", "daemon-reload")
    systemd("systemctl", "start", "slow.service")
    assert systemd.property("slow", "StatusText") == "up"
    systemd("systemctl", "stop", "slow.service")


def test_words_arrive_as_they_were(systemd: Booted) -> None:
    words = [
        "two words", 'a "quote"', "it's", "100%", "%n %%", "$HOME ${x} $$", "back\\slash \\n",
        "new\nline", "\ttab", ";", "\\;", "#", "", "μ…", "-", "--", "@:+!|", "\x01\x7f", "{}",
    ]  # fmt: skip
    dump = "import json, sys; print(json.dumps(sys.argv[1:]))"
    line = command_line(["/usr/bin/python3", "-c", dump, *words])
    unit = f"[Service]\nType=oneshot\nExecStart={line}\n"
    systemd.write("/run/systemd/system/words.service", unit)
    systemd("systemctl", "daemon-reload")
    systemd("systemctl", "start", "words.service")
    told = systemd.journal("words.service").splitlines()
    assert json.loads(next(entry for entry in told if entry.startswith("["))) == words


def test_a_bundle_at_home_is_all_that_is_seen_of_the_home(systemd: Booted) -> None:
    systemd("bash", "-c", f"chmod 700 /root; cp -r {BUNDLE} /root; touch /root/secret")
    options = ("--name", "home", "--device", "/dev/tty", *READER)
    systemd.gruard("service", "install", *options, "--", "/root/tiny-1.gruard", "--source", "-")
    main = systemd.property("gruard@home", "MainPID")
    assert systemd("ls", f"/proc/{main}/root/root") == "tiny-1.gruard\n"
    assert systemd.property("gruard@home", "ActiveState") == "active"
    systemd.gruard("service", "uninstall", "home")


@pytest.mark.parametrize(("named", "outcome"), [("sensor", "opened"), ("another", "refused")])
def test_the_named_device_can_be_opened_and_no_other(
    systemd: Booted, named: str, outcome: str
) -> None:
    """The device has the numbers of /dev/kmsg: anybody may open that for writing."""
    make = "mknod -m 660 /dev/sensor c 1 11; mknod -m 660 /dev/another c 10 200"
    systemd("bash", "-c", f"rm -f /dev/sensor /dev/another; {make}; chgrp dialout /dev/sensor")
    attempt = "(: > /dev/sensor) && echo opened >&2 || echo refused >&2"
    systemd.write("/opt/try.sh", f"{attempt}\nexec python3 -u /opt/reader.py\n")
    options = ("--name", named, "--group", "dialout", "--device", f"/dev/{named}")
    reader = ("--reader", "/bin/bash /opt/try.sh")
    systemd.gruard("service", "install", *options, *reader, "--", BUNDLE, "--source", "-")
    assert outcome in systemd.journal(f"gruard@{named}").splitlines()
    systemd.gruard("service", "uninstall", named)


def test_a_sinks_file_goes_on_behind_half_a_record(systemd: Booted) -> None:
    sink, unit = "/var/lib/gruard/kept/out.jsonl", "gruard@kept"
    words = (BUNDLE, "--source", "-", "--sink", sink)
    systemd.gruard("service", "install", "--name", "kept", *READER, "--", *words)
    until(lambda: len(systemd("cat", sink).splitlines()) > 1, "two records")
    systemd("systemctl", "kill", "--signal=KILL", unit)  # all of it
    systemd("systemctl", "stop", unit)
    before = systemd("cat", sink)
    systemd("truncate", "--size=-9", sink)
    systemd("systemctl", "start", unit)
    until(lambda: len(systemd("cat", sink)) > len(before), "more records")
    systemd.gruard("service", "uninstall", "kept")
    found = [json.loads(line)["index"] for line in systemd("cat", sink).splitlines()]
    whole = len(before.splitlines()) - 1
    assert found == [*range(whole), *range(len(found) - whole)] and len(found) > whole


def test_a_broker_is_reached_with_a_password_that_is_roots_to_read(systemd: Booted) -> None:
    """The broker is one packet long: it says what the sandbox let through."""
    systemd("mkdir", "-p", "/etc/gruard")
    systemd.write("/etc/gruard/loud.env", "GRUARD_MQTT_USER=pump\nGRUARD_MQTT_PASSWORD='a b'\n")
    systemd("chmod", "600", "/etc/gruard/loud.env")
    listen = "import socket; s = socket.create_server(('127.0.0.1', 1883)); "
    listen += "print(s.accept()[0].recv(999), flush=True)"
    systemd("systemd-run", "--unit=broker", "/usr/bin/python3", "-c", listen)
    words = (BUNDLE, "--source", "-", "--sink", "mqtt://127.0.0.1/plant/pump")
    kept = ("--journal", "/var/lib/gruard/loud/journal")
    options = ("--name", "loud", "--network", *READER)
    systemd.gruard("service", "install", *options, "--", *words, *kept)
    until(lambda: "MQTT" in systemd.journal("broker"), "the greeting")
    told = systemd.journal("broker")
    assert "plant/pump/status" in told and "\\x04pump" in told and "\\x03a b" in told
    assert '"index":0' in systemd.gruard("journal", "/var/lib/gruard/loud/journal")
    systemd.gruard("service", "uninstall", "loud")


def test_an_instance_made_by_hand_runs(installed: Booted) -> None:
    """As the head of the template says: the template, and two lines of one's own."""
    folder = "/etc/systemd/system/gruard@hand.service.d"
    gruard = "exec /usr/bin/python3 -m edge_runtime run " + BUNDLE
    line = f"/bin/bash -c '{gruard} --source - < <(exec /usr/bin/python3 -u /opt/reader.py)'"
    installed("mkdir", folder)
    installed.write(f"{folder}/override.conf", f"[Service]\nExecStart={line}\n")
    installed("systemctl", "daemon-reload")
    installed("systemctl", "enable", "--now", "gruard@hand")
    assert installed.property("gruard@hand", "ActiveState") == "active"
    assert installed.property("gruard@hand", "ProtectSystem") == "strict"
    installed("systemctl", "disable", "--now", "gruard@hand")
    told = installed.run("python3", "-m", "edge_runtime", "service", "uninstall", "hand")
    assert told.returncode == 2 and "there is no service hand" in told.stderr
    installed("rm", "-r", folder)


def test_an_instance_without_a_command_does_not_start(installed: Booted) -> None:
    told = installed.run("systemctl", "start", "gruard@nobody")
    assert told.returncode and "bad unit file setting" in told.stderr


def test_strange_settings_are_left_alone(systemd: Booted) -> None:
    folder = "/etc/systemd/system/gruard@other.service.d"
    systemd("mkdir", folder)
    systemd.write(f"{folder}/gruard.conf", "[Service]\nNice=5\n")
    refused = systemd.run("python3", "-m", "edge_runtime", "service", "uninstall", "other")
    assert refused.returncode == 2 and "was not written by gruard" in refused.stderr
    systemd("test", "-e", f"{folder}/gruard.conf")
    systemd("rm", "-r", folder)


def test_uninstall_stops_and_removes_it_and_keeps_its_state(installed: Booted) -> None:
    installed.gruard("service", "uninstall", "tiny")
    assert installed.property(UNIT, "LoadState") == "not-found"
    assert "gruard" not in installed("ls", "/etc/systemd/system")
    installed("test", "-e", "/var/lib/gruard/tiny/last-run.json")
    assert UNIT not in installed("ls", "/etc/systemd/system/multi-user.target.wants")
