"""Writes lib/pretrained/registry.json, which says where published SAEs are, and lib/models/modelNames.json, where models are.

usage: python scripts/registry.py            (with sae-lens 6.54.12, transformer-lens 3.9.0 and PyYAML installed)

The facts (repositories, paths, sparsities, scaling factors, which hook a path stands for) are read from
`pretrained_saes.yaml` in the package sae-lens; what its loaders know beyond that file stands below, and so do a few
releases that it lacks. Names of models are those that transformer-lens knows.
"""

import json
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import yaml
from transformer_lens import supported_models

ROOT = Path(__file__).parent.parent

# Releases that are taken over: those of models that can be loaded.
RELEASES = re.compile(
    r"gpt2-small-|pythia-70m-|sae_bench_pythia70m|gemma-2b-|gemma-scope-(2b|9b)-(pt|it)-|gemma-2-[29]b-res|saebench_gemma-2-2b|"
    r"sae_bench_gemma-2-2b|llama-3|llama_scope_lx|goodfire-llama-3\.1-8b|qwen-scope-3-(1\.7b|8b)|qwen2\.5-7b|mwhanna-qwen3"
)

# Names of sae-lens' loaders (none: its own folders) and of the formats of lib/pretrained/publishedFiles.ts.
FORMATS = {
    None: "saelens",
    "sae_lens": "saelens",
    "connor_rob_hook_z": "hook-z",
    "gemma_2": "gemma-scope",
    "gemma_2_transcoder": "gemma-scope",
    "llama_scope": "llama-scope",
    "dictionary_learning_1": "dictionary-learning",
    "mwhanna_transcoder": "circuit-tracer",
    "qwen_scope": "qwen-scope",
    "goodfire": "goodfire",
    "sparsify": "sparsify",
}

ARCHITECTURES = ("Standard", "TopK", "BatchTopK", "JumpRelu", "GatedSAE", "MatryoshkaBatchTopK", "PAnneal")

# Releases that the directory lacks, by the files of their repositories.
MORE = {
    # https://huggingface.co/EleutherAI/sae-pythia-160m-32k, .../sae-pythia-70m-32k
    **{
        f"sae-pythia-{size}-32k": {
            "repo_id": f"EleutherAI/sae-pythia-{size}-32k",
            "conversion_func": "sparsify",
            "model": f"pythia-{size}",
            "saes": [{"id": f"layers.{n}.mlp", "path": f"layers.{n}.mlp"} for n in range(layers)],
        }
        for size, layers in (("70m", 6), ("160m", 12))
    },
    # https://huggingface.co/adamkarvonen/saebench_pythia-160m-deduped_width-2pow12_date-0108, ...
    **{
        f"saebench_pythia-160m-deduped_width-2pow{power}_date-0108": {
            "repo_id": f"adamkarvonen/saebench_pythia-160m-deduped_width-2pow{power}_date-0108",
            "conversion_func": "dictionary_learning_1",
            "model": "pythia-160m-deduped",
            "saes": [
                {
                    "id": f"blocks.8.hook_resid_post__{architecture}_trainer_{n}",
                    "path": f"{architecture}_pythia-160m-deduped__0108/resid_post_layer_8/trainer_{n}",
                }
                for architecture in ARCHITECTURES
                for n in range(6)
            ],
        }
        for power in (12, 14)
    },
}

# Context size and whether contexts begin with BOS, where the SAE's own files do not say it; OpenAI's are in their cfg.json.
SETTINGS = {
    "gemma-scope": {"contextSize": 1024, "prependBos": True},
    "llama-scope": {"contextSize": 1024, "prependBos": True},
    "qwen-scope": {"contextSize": 1024, "prependBos": True},
    "hook-z": {"contextSize": 128, "prependBos": True},
    "dictionary-learning": {"prependBos": True},
}


def hooks(format_, release, repository, id_, path):
    """The hook points that an SAE reads and, of a transcoder, writes; nothing where only its own files tell."""
    layer = re.search(r"layer_?(\d+)|-L(\d+)[RAM]-", path)
    block = f"blocks.{layer.group(1) or layer.group(2)}" if layer else None
    if format_ == "gemma-scope":
        if "embedding" in path:
            return {"hook": "hook_embed"}
        if "transcoders" in repository:
            return {"hook": f"{block}.ln2.hook_normalized", "hookOut": f"{block}.hook_mlp_out"}
        site = repository.rsplit("-", 1)[1]
        return {"hook": f"{block}.{ {'res': 'hook_resid_post', 'mlp': 'hook_mlp_out', 'att': 'attn.hook_z'}[site] }"}
    if format_ == "llama-scope":
        site = re.search(r"-L\d+([RAM])-", path).group(1)
        return {"hook": f"{block}.{ {'R': 'hook_resid_post', 'A': 'hook_attn_out', 'M': 'hook_mlp_out'}[site] }"}
    if format_ == "circuit-tracer":
        return {"hook": f"{block}.mlp.hook_in", "hookOut": f"{block}.hook_mlp_out"}
    if format_ in ("qwen-scope", "dictionary-learning"):
        return {"hook": f"{block}.hook_resid_post"}
    if format_ == "sparsify":
        return {"hook": re.sub(r"layers\.(\d+)\.mlp", r"blocks.\1.hook_mlp_out", path)}
    named = re.search(r"(?:blocks\.|layer_)(\d+)\.?_?", id_)
    if format_ == "hook-z":
        return {"hook": f"blocks.{named.group(1)}.attn.hook_z"}
    if format_ == "goodfire":
        number = re.search(r"-l(\d+)\.", path).group(1)
        return {"hook": f"blocks.{number}.hook_resid_post"}
    plain = re.search(r"blocks\.\d+\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)", id_)
    return {"hook": plain.group(0)} if plain else {}


def model_of(format_, facts):
    if format_ != "gemma-scope":
        return facts["model"]
    # The directory calls the model of the instruction-tuned ones by the name of the other.
    size, tuning = re.search(r"gemma-scope-(\d+b)-(pt|it)-", facts["repo_id"]).groups()
    return f"gemma-2-{size}{'-it' if tuning == 'it' else ''}"


def sae(format_, release, repository, entry):
    id_, path = str(entry["id"]), str(entry["path"])
    found = {"id": id_}
    if path != id_:
        found["path"] = path
    found |= hooks(format_, release, repository, id_, path)
    in_path = re.search(r"average_l0_(\d+)", path)
    if entry.get("l0") or in_path:
        found["l0"] = entry.get("l0") or int(in_path.group(1))
    # Below 0 are some that were measured without the scaling of the activations.
    if entry.get("variance_explained", 0) > 0:
        found["explainedVariance"] = entry["variance_explained"]
    # Llama Scope's own files hold theirs.
    if format_ == "saelens" and "norm_scaling_factor" in entry:
        found["inputScale"] = entry["norm_scaling_factor"]
    return found


def write(path, records):
    """JSON with one record a line: a change shows as a change of lines."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(records + "\n")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def registry():
    with files("sae_lens").joinpath("pretrained_saes.yaml").open() as file:
        directory = {**yaml.load(file, Loader=yaml.CSafeLoader), **MORE}
    releases = []
    for release, facts in sorted(directory.items()):
        format_ = FORMATS.get(facts.get("conversion_func"))
        if format_ is None or not (release in MORE or RELEASES.match(release)):
            continue
        overrides = facts.get("config_overrides") or {}
        kept = {key: value for key, value in overrides.items() if key == "model_from_pretrained_kwargs"}
        head = {
            "repository": facts["repo_id"],
            "format": format_,
            "model": model_of(format_, facts),
            **SETTINGS.get(format_, {}),
            **({"metadata": kept} if kept else {}),
        }
        lines = ",\n      ".join(json.dumps(sae(format_, release, facts["repo_id"], entry)) for entry in facts["saes"])
        body = json.dumps(head)[:-1]
        releases.append(f'    {json.dumps(release)}: {body}, "saes": [\n      {lines}\n    ]}}')
    source = f"facts from pretrained_saes.yaml of sae-lens {version('sae-lens')} and a few more, by scripts/registry.py"
    write(
        ROOT / "lib/pretrained/registry.json",
        f'{{\n  "source": {json.dumps(source)},\n  "releases": {{\n' + ",\n".join(releases) + "\n  }\n}",
    )


def model_names():
    wanted = re.compile(r"(EleutherAI/pythia-|google/gemma-2?|meta-llama/|Qwen/Qwen(2|2\.5|3)-|mistralai/Mistral-7B)")
    names = {f"gpt2{size}": f"openai-community/gpt2{size}" for size in ("", "-medium", "-large", "-xl")}
    names["gpt2-small"] = "openai-community/gpt2"
    names["meta-llama/Meta-Llama-3.1-8B"] = "meta-llama/Llama-3.1-8B"
    for official in supported_models.OFFICIAL_MODEL_NAMES:
        if not wanted.match(official) or re.search(r"-v0$|-seed\d|gemma-3", official):
            continue
        names[official.split("/")[1].lower()] = official
        for alias in supported_models.MODEL_ALIASES.get(official, []):
            names[alias] = official
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(names[name])}" for name in sorted(names))
    write(ROOT / "lib/models/modelNames.json", "{\n" + lines + "\n}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    registry()
    model_names()
