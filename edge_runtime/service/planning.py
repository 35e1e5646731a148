"""Completes what a user asked for by what the bundle and this machine tell."""

import re
from dataclasses import replace
from pathlib import Path

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.kernels import CORE_KERNEL_ID, KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.service.order import (
    STATE,
    Order,
    check_network,
    check_paths,
    check_python,
    check_streams,
    checked_name,
    devices_in,
    groups_of,
    homes_in,
    is_endless,
)
from edge_runtime.service.unit import Service
from edge_runtime.updates.store import Store

_SIZE = re.compile(r"[1-9][0-9]*[KMGT]?")
_GROUP = re.compile(r"[a-z_][a-z0-9_-]*")


def planned(asked: Service, order: Order) -> Service:
    """The service as it will be. Raises GruardError where it could not run as one.

    asked: what the options said; an empty name means the bundle's.
    """
    _check_words(asked)
    check_paths(order)
    bundle = read_bundle(
        _bundle_of(order), order.allow_failed, [order.here(key) for key in order.keys]
    )
    name = checked_name(asked.name or bundle.manifest.name.lower())
    check_streams(order, name, asked.reader)
    check_network(order, asked.network)
    made = replace(
        asked,
        name=name,
        words=order.service_words,
        period=bundle.manifest.period,
        endless=is_endless(order),
        homes=homes_in(order, bundle, asked.reader),
        devices=devices_in((*asked.devices, *order.words)),
        generates_code=order.kernel not in (None, KERNEL_ID, CORE_KERNEL_ID)
        or order.delegate is not None,
    )
    return made if order.root != Path("/") else _on_this_machine(made)


def _bundle_of(order: Order) -> Path:
    """Where the bundle lies that the service begins with; in a store, the current one."""
    if order.bundle is not None:
        return order.here(order.bundle)
    if order.store is None:
        raise GruardError(
            f"a service needs a BUNDLE, or --store {STATE}/NAME with a bundle that was installed "
            "there"
        )
    store = Store(order.here(order.store))
    current = store.pointers().current
    if current is None:
        raise GruardError(
            f"{order.store}: no bundle is installed there; gruard install BUNDLE --store "
            f"{order.store}"
        )
    return store.slots.path(current)


def _on_this_machine(made: Service) -> Service:
    check_python(made.python)
    return replace(made, groups=made.groups or groups_of(made.devices))


def _check_words(asked: Service) -> None:
    if not _SIZE.fullmatch(asked.memory):
        raise GruardError(f"--memory {asked.memory}: write a number of bytes, K, M or G, as 256M")
    for group in asked.groups:
        if not _GROUP.fullmatch(group):
            raise GruardError(f"--group {group}: is no name of a group")
    for device in asked.devices:
        if devices_in([device]) != (device,):
            raise GruardError(f"--device {device}: write the whole path, as /dev/ttyUSB0")
