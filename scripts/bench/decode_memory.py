"""Peak memory of decoding a clip, streamed and as the library does: `python -m scripts.bench.decode_memory`.

Each row runs in a process of its own, on a tiny checkpoint with the real ratios; what counts is how the figures grow
with the clip, and their ratio. "frames" is the decoded clip as the library returns it, float32.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import Any, Final

from scripts.tiny_models import cached

WIDTH, HEIGHT = 384, 224
LENGTHS: Final = (41, 121, 241)
WAYS: Final = ("streamed", "library, whole")
CHUNK_FRAMES, OVERLAP_FRAMES, TILE_PIXELS = 32, 8, 512


def main() -> None:
    if len(sys.argv) == 3:
        print(*measure(sys.argv[1], int(sys.argv[2])))
        return
    print(f"decode of {WIDTH}x{HEIGHT}, chunks of {CHUNK_FRAMES} frames, CPU; peak above the loaded decoder, in MiB\n")
    print(f"{'frames':>7} {'as floats':>10}", *(f"{way:>23}" for way in WAYS), f"{'ratio':>7}")
    peaks: dict[tuple[str, int], float] = {}
    for frames in LENGTHS:
        cells: list[str] = []
        for way in WAYS:
            command = [sys.executable, "-W", "ignore", "-m", "scripts.bench.decode_memory", way, str(frames)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            peak_mib, seconds = (float(word) for word in done.stdout.split()[-2:])
            peaks[way, frames] = peak_mib
            cells.append(f"{f'{peak_mib:.0f} ({seconds:.1f} s)':>23}")
        ratio = peaks[WAYS[0], frames] / peaks[WAYS[1], frames]
        floats_mib = frames * 3 * WIDTH * HEIGHT * 4 / 2**20
        print(f"{frames:>7} {floats_mib:>10.0f}", *cells, f"{ratio:>7.2f}")
    first, last = LENGTHS[0], LENGTHS[-1]
    print(f"\n{last} frames over {first}:", *(f"{way} x{peaks[way, last] / peaks[way, first]:.2f};" for way in WAYS))


def measure(way: str, frames: int) -> tuple[float, float]:
    """Peak MiB above the loaded decoder, and seconds, of decoding `frames` frames and touching every picture."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video

    from zsky_box.pipelines.decode import Tiling, pictures, to_pictures

    vae: Any = AutoencoderKLLTX2Video.from_pretrained(str(cached("tiny-ltx25")), subfolder="vae").eval()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, (frames - 1) // 8 + 1, HEIGHT // 32, WIDTH // 32, generator=generator)
    tiling = Tiling(CHUNK_FRAMES, OVERLAP_FRAMES, TILE_PIXELS)
    sum(1 for _ in pictures(vae, latents[:, :, :1], tiling, WIDTH, HEIGHT))  # what the libraries allocate once
    base_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    if way == WAYS[0]:
        seen = sum(1 for _ in pictures(vae, latents, tiling, WIDTH, HEIGHT))
    else:
        with torch.no_grad():
            decoded = vae.decode(latents, return_dict=False)[0]
        seen = len(to_pictures(decoded[0].transpose(0, 1), WIDTH, HEIGHT))
    seconds = time.perf_counter() - began
    assert seen == frames
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base_kib) / 1024, seconds


if __name__ == "__main__":
    main()
