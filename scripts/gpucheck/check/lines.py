"""What is measured, and what it is held to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One row of the table. ``least`` and ``most`` bound the figure; without either it is only
    reported. ``aim`` is what is hoped for beyond that. A line of yes or no has 1 for yes."""

    key: str
    part: str
    what: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    aim: float | None = None

    @property
    def target(self) -> str:
        """The bound as the table shows it."""
        if self.unit == "yes":
            return "yes"
        bound = "" if self.least is None and self.most is None else f"≥ {self.least:g}" if self.most is None else f"≤ {self.most:g}"
        if bound and self.unit:
            bound += f" {self.unit}"
        return bound + (f" (aim {self.aim:g})" if self.aim is not None else "")

    def verdict(self, value: float) -> str:
        """met, missed, or reported where there is no bound."""
        if self.least is None and self.most is None:
            return "reported"
        low = self.least is None or value >= self.least
        high = self.most is None or value <= self.most
        return "met" if low and high else "missed"


def _yes(key: str, part: str, what: str) -> Line:
    return Line(key, part, what, "yes", least=1)


# In the order in which they are measured and shown.
LINES: tuple[Line, ...] = (
    Line("pinned_h2d", "raw", "raw: pinned copy, host to device", "GB/s"),
    Line("pinned_d2h", "raw", "raw: pinned copy, device to host", "GB/s"),
    Line("raw_fill", "raw", "raw: memset of the device", "GB/s"),
    Line("raw_copy", "raw", "raw: copy on the device", "GB/s"),
    Line("raw_peer", "peer", "raw: cuMemcpyPeer, access enabled", "GB/s"),
    Line("safetensors_rate", "load", "safetensors.torch.load_file(device=cuda), page cache", "GB/s"),
    Line("load_rate", "load", "isobar, page cache to tensors", "GB/s"),
    Line("load_warm_rate", "load", "isobar, the same with a copy kept in RAM", "GB/s"),
    Line("fastsafetensors_rate", "load", "fastsafetensors, page cache to tensors", "GB/s"),
    Line("runai_rate", "load", "Run:ai model streamer, page cache to tensors", "GB/s"),
    Line("load_over_safetensors", "load", "page cache to tensors ÷ safetensors", "×", least=7, aim=8),
    Line("load_over_pinned", "load", "page cache to tensors ÷ pinned copy", "×", least=0.65, aim=0.8),
    _yes("load_equal", "load", "every tensor equals the file's"),
    Line("promote_over_pinned", "tiers", "RAM tier to VRAM ÷ pinned copy", "×", least=0.95),
    Line("demote_over_pinned", "tiers", "VRAM to RAM tier, the copy by the node's clock, ÷ pinned copy", "×", least=0.95),
    Line("demote_over_link", "tiers", "demotion, until the VRAM is back, ÷ link", "×", least=0.9),
    Line("attach_mapped", "attach", "second process, mapped, p99", "ms", most=10),
    Line("attach_views", "attach", "second process, all views built, p99", "ms", most=25),
    _yes("attach_equal", "attach", "forward pass bit-equal to the ordinary load's"),
    Line("attach_big_mapped", "attach-big", "second process, large model, mapped, p99", "ms", most=10),
    Line("attach_big_views", "attach-big", "second process, large model, all views built, p99", "ms", most=25),
    Line("clear_over_raw", "copies", "clear, by the node's clock, ÷ raw memset", "×", least=0.95),
    Line("copy_over_raw", "copies", "copy, by the node's clock, ÷ raw copy on the device", "×", least=0.95),
    Line("clear_whole", "copies", "clear of 24 GiB, the whole command, ÷ raw memset", "×"),
    Line("copy_whole", "copies", "copy of 24 GiB, the whole command, ÷ raw copy on the device", "×"),
    Line("peer_over_raw", "peer", "transfer between GPUs, the copy by the node's clock ÷ raw cuMemcpyPeer", "×", least=0.95),
    Line("peer_whole", "peer", "transfer between GPUs, with the making of the target and the command", "GB/s"),
    Line("grant_over_echo", "grants", "allocate 64 MiB from spares ÷ raw echo, p50", "×", most=1.3),
    Line("grant_cold_over_echo", "grants", "allocate 64 MiB cold − raw echo, p50", "ms", most=0.6),
    Line("freed_dropped", "pressure", "threshold crossed to bytes back, dropped, p99", "ms", most=20),
    Line("freed_kept", "pressure", "the same, with a copy in RAM, p99", "ms", most=20),
    Line("freed_reader", "pressure", "the same, one cooperative reader, p99", "ms", most=100),
    _yes("node_kill_bytes", "node-kill", "node killed: bytes in VRAM unchanged, readers undisturbed"),
    Line("node_kill_answers", "node-kill", "node killed: answers after start, longest", "s", most=1.5),
    Line("node_kill_register", "node-kill", "node killed: first promotion from RAM after it", "ms"),
    Line("consumer_after_pidfd", "consumer-kill", "consumer killed: grantable after its pidfd, p99", "ms", most=20),
    Line("consumer_after_kill", "consumer-kill", "consumer killed: grantable after the kill, p99", "ms", most=250),
    Line("cycles_left", "cycles", "load/unload cycles: driver's used bytes, end − start", "MiB", most=2),
    Line("cycles_drift", "cycles", "load/unload cycles: ledger − driver, worst quiescent point", "MiB", most=2),
    _yes("driver_suite", "driver", "conformance suite of the driver"),
)
