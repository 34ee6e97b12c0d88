"""What the clouds take, as their public documentation has it: fields, types, limits. In our own words.

``python -m tests.deploy.forms`` writes deploy/runpod/schema.json and deploy/vast/schema.json from these models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.json_schema import models_json_schema

ROOT = Path(__file__).resolve().parents[2]

RUNPOD_SOURCE = "repository runpod/docs, api-reference/openapi.json (REST v1), and pods/templates, as of 2026"
VAST_SOURCE = (
    "vast-ai/docs (api-reference/creating-and-using-templates-with-api, cli/templates) and vast-ai/vast-cli"
    " (vastai/api/offers.py, query.py), as of 2026"
)

Port = Annotated[
    str,
    StringConstraints(
        pattern=r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])/(http|tcp)$"
    ),
]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Folder = Annotated[str, StringConstraints(pattern=r"^/[^:]+$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Cuda = Literal["13.0", "12.9", "12.8", "12.7", "12.6", "12.5", "12.4", "12.3", "12.2", "12.1", "12.0", "11.8"]
# Those of the documented list that compute in bf16 and have 16 GB or more: the others are no use here.
RunpodGpu = Literal[
    "NVIDIA GeForce RTX 3090",
    "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA GeForce RTX 4080",
    "NVIDIA GeForce RTX 4080 SUPER",
    "NVIDIA GeForce RTX 4090",
    "NVIDIA GeForce RTX 5080",
    "NVIDIA GeForce RTX 5090",
    "NVIDIA RTX A4000",
    "NVIDIA RTX A4500",
    "NVIDIA RTX A5000",
    "NVIDIA RTX A6000",
    "NVIDIA RTX 2000 Ada Generation",
    "NVIDIA RTX 4000 Ada Generation",
    "NVIDIA RTX 4000 SFF Ada Generation",
    "NVIDIA RTX 5000 Ada Generation",
    "NVIDIA RTX 6000 Ada Generation",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
    "NVIDIA A30",
    "NVIDIA A40",
    "NVIDIA L4",
    "NVIDIA L40",
    "NVIDIA L40S",
    "NVIDIA A100 80GB PCIe",
    "NVIDIA A100-SXM4-80GB",
    "NVIDIA H100 80GB HBM3",
    "NVIDIA H100 NVL",
    "NVIDIA H100 PCIe",
    "NVIDIA H200",
    "NVIDIA H200 NVL",
    "NVIDIA B200",
    "AMD Instinct MI300X OAM",
]


class Form(BaseModel):
    """A request body: nothing that is not documented, nothing of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RunpodContainer(Form):
    """What a template and a pod both say about the container."""

    dockerEntrypoint: list[str] = Field([], description="Replaces the image's ENTRYPOINT; an empty list keeps it.")
    dockerStartCmd: list[str] = Field([], description="Replaces the image's CMD; an empty list keeps it.")
    env: dict[VariableName, str] = Field({}, max_length=50, description="Variables; a pod takes 50 at most.")
    ports: list[Port] = Field(["8888/http", "22/tcp"], description="Ports to open, as number/http or number/tcp.")
    containerRegistryAuthId: Text = Field(None, description="Which stored login pulls a private image.")
    volumeMountPath: Folder = Field("/workspace", description="Where the volume is mounted.")


class RunpodTemplate(RunpodContainer):
    """Body of POST /v1/templates (TemplateCreateInput)."""

    name: Text = Field(description="Shown in the console; no two templates of one account have the same.")
    imageName: Text = Field(description="The image, as an engine pulls it.")
    category: Literal["NVIDIA", "AMD", "CPU"] = Field(
        "NVIDIA", description="Which machines the template is offered for."
    )
    containerDiskInGb: int = Field(50, ge=1, description="Disk that is wiped at each stop.")
    volumeInGb: int = Field(20, ge=0, description="Disk that a stopped pod keeps; it costs while the pod is stopped.")
    isPublic: bool = Field(False, description="Whether others see it.")
    isServerless: bool = Field(False, description="Whether it is for workers of an endpoint instead of pods.")
    readme: str = Field("", description="Markdown that the console shows.")


class RunpodPod(RunpodContainer):
    """Body of POST /v1/pods (PodCreateInput). A field that is left out comes from the template."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=191)] = Field("my pod", description="Not unique.")
    templateId: Text = Field(None, description="The template that fills in the rest.")
    imageName: Text = Field(None, description="The image, where no template is named.")
    computeType: Literal["GPU", "CPU"] = Field("GPU", description="Kind of pod.")
    cloudType: Literal["SECURE", "COMMUNITY"] = Field("SECURE", description="Data centres, or hosts of others.")
    gpuCount: int = Field(1, ge=1, description="How many GPUs.")
    gpuTypeIds: list[RunpodGpu] = Field([], description="GPUs to accept.")
    gpuTypePriority: Literal["availability", "custom"] = Field(
        "availability", description="What is free, or our order."
    )
    allowedCudaVersions: list[Cuda] = Field([], description="What the host's driver may support at most; empty: any.")
    dataCenterIds: list[Text] = Field([], description="Where it may run; a network volume binds it to one place.")
    minRAMPerGPU: int = Field(8, ge=1, description="Main memory for each GPU in GB.")
    minVCPUPerGPU: int = Field(2, ge=1, description="Processor threads for each GPU.")
    interruptible: bool = Field(False, description="Cheaper, and may be stopped at any time.")
    networkVolumeId: Text = Field(None, description="A network volume in the place of the pod's own.")
    supportPublicIp: bool | None = Field(None, description="Community cloud only: ask for a public address, for ssh.")
    containerDiskInGb: int | None = Field(50, ge=1, description="As in the template.")
    volumeInGb: int | None = Field(20, ge=0, description="As in the template.")


Operator = Literal["eq", "neq", "gt", "gte", "lt", "lte", "in", "notin"]
# The fields of offers that this project asks for; sizes of memory are in MB in this form, in GB on the command line.
VastFilter = Literal[
    "verified", "external", "rentable", "gpu_arch", "gpu_name", "cpu_arch", "num_gpus", "gpu_ram", "compute_cap",
    "cuda_max_good", "cpu_ram", "disk_space", "inet_down", "reliability", "direct_port_count", "driver_version",
    "dph_total", "geolocation",
]  # fmt: skip


class VastTemplate(Form):
    """Body of POST /api/v0/template/."""

    name: Text = Field(description="Shown in the console.")
    image: Text = Field(description="The image's name; its tag stands in the next field.")
    tag: Text = Field("latest", description="The image's tag.")
    desc: str = Field("", description="One line about it.")
    readme: str = Field("", description="More about it.")
    readme_visible: bool = Field(True, description="Whether others see the readme.")
    env: str = Field("", description="Options of docker create, of which only -e, -h and -p are taken.")
    onstart: str = Field("", max_length=4048, description="Shell text that runs at each start, not in mode args.")
    runtype: Literal["ssh", "jupyter", "args"] = Field("args", description="ssh and jupyter replace the ENTRYPOINT.")
    args_str: str = Field("", description="Mode args only: what replaces the image's CMD.")
    use_ssh: bool = Field(False, description="Whether Vast sets up ssh.")
    ssh_direct: bool = Field(False, description="ssh to the machine itself instead of by a relay.")
    jup_direct: bool = Field(False, description="The same for Jupyter.")
    jupyter_dir: str | None = Field(None, description="Where Jupyter starts.")
    use_jupyter_lab: bool = Field(False, description="Lab instead of notebook.")
    docker_login_repo: str = Field(description="Registry of a private image; has to be there, may be empty.")
    docker_login_user: str = Field(description="Its user; has to be there, may be empty.")
    docker_login_pass: str = Field(description="Its token; has to be there, may be empty. Nobody should commit one.")
    extra_filters: dict[VastFilter, dict[Operator, bool | int | float | str | list[str]]] = Field(
        {}, description="Which offers are shown with the template."
    )
    recommended_disk_space: int | float = Field(8, gt=0, description="Disk in GB; it cannot grow later.")
    private: bool = Field(True, description="Whether only you see it.")
    href: str = Field(None, description="A link to the image.")
    repo: str = Field(None, description="The image's repository.")


def schema(title: str, source: str, models: list[type[Form]]) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that any of the bodies fits."""
    _, whole = models_json_schema([(model, "validation") for model in models])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "$comment": f"Source: {source}. Written by python -m tests.deploy.forms.",
        "anyOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in models],
        "$defs": whole["$defs"],
    }


SCHEMAS = {
    ROOT / "deploy/runpod/schema.json": ("Templates and pods of RunPod", RUNPOD_SOURCE, [RunpodTemplate, RunpodPod]),
    ROOT / "deploy/vast/schema.json": ("Templates of Vast", VAST_SOURCE, [VastTemplate]),
}


def main() -> None:
    for path, (title, source, models) in SCHEMAS.items():
        path.write_text(json.dumps(schema(title, source, list(models)), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
