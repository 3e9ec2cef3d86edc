"""What the whole suite shares: no network, few threads, and the same random examples every time."""

import ipaddress
import os
import socket
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Read when torch is first imported, here and in subprocesses; tiny models only get slower on more threads, and two
# workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("mmalign", deadline=None, derandomize=True)
hypothesis.settings.load_profile("mmalign")

OFFLINE = os.environ["HF_HUB_OFFLINE"] != "0"


def is_local(host: str | bytes | None) -> bool:
    """Whether an address stays on this machine."""
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name == "localhost"
    return address.is_loopback or address.is_unspecified


def refuse_the_network(patch: pytest.MonkeyPatch) -> None:
    """Fail whatever reaches beyond this machine, through a connection or a name lookup."""

    def guard(function: Any, host_of: Any) -> Any:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args, **kwargs)
            if not is_local(host):
                # No subclass of Exception, which a library could take for a cue to try again.
                pytest.fail(f"the tests run offline, and this one reached for {host}", pytrace=True)
            return function(*args, **kwargs)

        return guarded

    def peer(self: socket.socket, address: Any) -> Any:
        return address[0] if self.family in (socket.AF_INET, socket.AF_INET6) else None

    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, guard(getattr(socket.socket, name), peer))
    patch.setattr(socket, "getaddrinfo", guard(socket.getaddrinfo, lambda host, *_, **__: host))


def pytest_configure(config: pytest.Config) -> None:
    if OFFLINE:
        patch = pytest.MonkeyPatch()
        config.add_cleanup(patch.undo)
        refuse_the_network(patch)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if OFFLINE and item.get_closest_marker("weights"):
        pytest.skip("wants weights from the hub; HF_HUB_OFFLINE=0 lets it fetch them")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("wants a CUDA device")
