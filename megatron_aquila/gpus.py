"""GPUs: what `aquila plan` counts with, and where MFU takes a device's peak from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """One device as its data sheet has it.

    memory: GiB that CUDA can give out (`torch.cuda.get_device_properties().total_memory`), which is less than the name
    says. tflops: dense bf16 with float32 accumulation. link: GB/s in one direction to the GPUs of the same node, over
    NVLink or, without it, PCIe. network: GB/s in one direction to other nodes, a GPU's share in NVIDIA's own reference
    systems. mfu: what training of this kind reaches, for lack of a better number.
    """

    name: str
    memory: float
    tflops: float
    link: float
    network: float
    mfu: float


# Peaks, NVLink: NVIDIA's data sheets (A100, H100, H200, L40S; A800, H800 and H20 are those dies with a narrower NVLink
# or fewer units, per their vendors' sheets). Network: DGX A100 8 × HDR 200 Gb/s, DGX H100 8 × NDR 400 Gb/s.
# MFU: A100 0.49 measured by ms-swift (Qwen2.5-14B, 8 × A800, TP4, packed 8K), 0.52-0.56 by TinyLlama (1.1B); H100 0.33
# to 0.39 by torchtitan (8B, bf16, FSDP), 0.41 to 0.47 by Megatron-LM. The defaults stay below the best of these. For
# H20 and L40S nobody publishes one: taken as A100's.
GPUS: Mapping[str, GPU] = {
    gpu.name: gpu
    for gpu in (
        GPU("a100-40g", 39.4, 312.0, 300.0, 25.0, 0.45),
        GPU("a100-80g", 79.2, 312.0, 300.0, 25.0, 0.45),
        GPU("a800-80g", 79.2, 312.0, 200.0, 25.0, 0.45),
        GPU("h100", 79.1, 989.0, 450.0, 50.0, 0.40),
        GPU("h800", 79.1, 989.0, 200.0, 50.0, 0.40),
        GPU("h200", 139.7, 989.0, 450.0, 50.0, 0.40),
        GPU("h20", 95.0, 148.0, 450.0, 50.0, 0.45),
        GPU("l40s", 44.4, 362.0, 32.0, 25.0, 0.45),
    )
}


def peak_of(device_name: str) -> float | None:
    """Dense bf16 TFLOP/s of a device by the name that CUDA gives it; None where it is not in the table."""
    for gpu in sorted(GPUS.values(), key=lambda gpu: -len(gpu.name.partition("-")[0])):
        if gpu.name.partition("-")[0].upper() in device_name.upper():
            return gpu.tflops
    return None
