"""From the configuration to the data sets of the run, with every value settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ltxtrain.config.caption_rules import caption_filters
from ltxtrain.config.data import CacheConfig, DataConfig
from ltxtrain.config.datasets import Dataset, Kind
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.entry_faults import EntryFaults
from ltxtrain.config.idle_entries import entry_notices
from ltxtrain.config.limits import check_dataset, starts_at_once
from ltxtrain.config.objective import ObjectiveConfig
from ltxtrain.config.read_entries import Entries, Place, read_entries
from ltxtrain.config.refusals import refuse
from ltxtrain.config.secrets import shown_key
from ltxtrain.config.settle import Fallback, Store, folder_alone, is_eval, settled
from ltxtrain.config.text import Document, read_document
from ltxtrain.config.validation import ValidationConfig
from ltxtrain.errors import ConfigError, DataError, Fault

MEASURING = (
    "eval_steps_interval",
    "eval_epoch_interval",
    "num_eval_images",
    "eval_timesteps",
    "eval_dataset_pooling",
    "eval_loss_disable",
)
"""How the loss on eval sets is measured. Without an interval that is before the first step and after the last."""


def resolve_datasets(data: DataConfig, cache: CacheConfig, validation: ValidationConfig) -> tuple[Dataset, ...]:
    """The data sets, train and eval, that ``data`` names: its ``datasets``, its file, or its folder.

    ``cache`` holds what their cache rules fall back on, ``validation`` what is measured on eval sets.
    Raises ConfigError for a list that is wrong, DataError when no data is named or nothing is left to train on. A run
    does this once, when it is planned: from then on the list may change or go, and ``Plan.settled`` is what holds.
    """
    listed = listed_entries(data)
    if listed is None:
        if data.instance_data_dir is None:
            raise DataError("no clips are named", hint="say --data FOLDER, a folder of clips with a .txt beside each")
        faults = _not_measured(validation, [])
        return (_folder_alone(data, cache, data.instance_data_dir, faults),)
    faults = list(listed.faults)
    used = [
        (entry, EntryFaults(entry.id, place))
        for entry, place in zip(listed.entries, listed.places, strict=True)
        if not _disabled(entry)
    ]
    clips = [(entry, found) for entry, found in used if not refuse(entry, found) and entry.dataset_type != STORE]
    stores = _stores(used)
    datasets = []
    for entry, found in clips:
        fallback = Fallback(data, cache, _store_of(entry, stores, found), _eval_kind(clips))
        dataset = settled(entry, fallback, found)
        check_dataset(dataset, entry, found)
        datasets.append(dataset)
    faults += [fault for _, found in used for fault in found.faults]
    faults += _list_faults(datasets, clips, validation)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    if not any(dataset.role == "train" for dataset in datasets):
        hint = "give one entry of dataset_type video or image that is not disabled"
        raise DataError("no data set is left to train on", hint=hint)
    return tuple(datasets)


STORE = "text_embeds"

Found = tuple[DatasetEntry, EntryFaults]


def _stores(used: Sequence[Found]) -> dict[str, Store]:
    """The stores of prompt embeddings by id, the default one first."""
    stores = [(entry, found) for entry, found in used if entry.dataset_type == STORE]
    defaults = [(entry, found) for entry, found in stores if entry.default]
    for _, found in defaults[1:]:
        found.add("default", f"there is a default store already: {defaults[0][0].id}", "keep one")
    ordered = sorted(stores, key=lambda item: not item[0].default)
    return {entry.id: Store(entry, caption_filters(entry, found)) for entry, found in ordered}


def _store_of(entry: DatasetEntry, stores: Mapping[str, Store], found: EntryFaults) -> Store | None:
    """The store that ``text_embeds`` names, else the default one, else the first."""
    if entry.text_embeds is None:
        return next(iter(stores.values()), None)
    if entry.text_embeds not in stores:
        known = f"there is {', '.join(stores)}" if stores else "leave text_embeds out"
        found.add("text_embeds", f"{shown_key(entry.text_embeds)} is no entry of dataset_type text_embeds", known)
    return stores.get(entry.text_embeds)


def _eval_kind(clips: Sequence[Found]) -> Kind:
    """Eval sets hold what the train sets hold: pictures when all of those do, else videos."""
    kinds = {entry.dataset_type for entry, _ in clips if not is_eval(entry)}
    return "image" if kinds == {"image"} else "video"


def _list_faults(datasets: Sequence[Dataset], clips: Sequence[Found], validation: ValidationConfig) -> list[Fault]:
    """What the entries do not fulfil together."""
    trained = [dataset for dataset in datasets if dataset.role == "train"]
    measured = [dataset.id for dataset in datasets if dataset.role == "eval"]
    faults = []
    if measured and not trained:
        place = next(found.place.at("dataset_type") for entry, found in clips if is_eval(entry))
        problem = "is an eval set, and there is no set to train on"
        faults.append(Fault(measured[0], problem, place, "add an entry of dataset_type video"))
    if trained and not any(starts_at_once(dataset.schedule) for dataset in trained):
        problem = "no data set is drawn from in the first step"
        hint = "leave start_epoch and start_step out of one of them, and give it a probability above 0"
        faults.append(Fault("", problem, clips[0][1].place.document.name, hint))
    return faults + _not_measured(validation, measured)


def _not_measured(validation: ValidationConfig, measured: Sequence[str]) -> list[Fault]:
    """An eval set that is asked for and is none."""
    wanted = validation.eval_dataset_id
    if wanted is None or wanted in measured:
        return []
    known = f"there is {', '.join(measured)}" if measured else "add an entry of dataset_type eval"
    return [Fault("eval_dataset_id", f"{shown_key(wanted)} is no eval set", "", known)]


def _folder_alone(data: DataConfig, cache: CacheConfig, root: Path, others: Sequence[Fault]) -> Dataset:
    found = EntryFaults("clips", Place(Document("", None, {})))
    dataset = folder_alone(root, Fallback(data, cache), found)
    own = [Fault(fault.key.partition(".")[2], fault.problem, "", fault.suggestion) for fault in found.faults]
    if faults := [*own, *others]:
        raise ConfigError(faults)
    return dataset


def dataset_settings(dataset: Dataset) -> dict[str, object]:
    """All values of a data set that decide the result, but not where it lies: for digests.

    The same settings give the same values, whether they stand in a JSON file, in ``[[datasets]]`` or in options. How
    latents are cached is left out, but for cuts that are drawn anew.
    """
    values = asdict(dataset)
    values["cache"] = {"redrawn": dataset.cache.redrawn}
    if dataset.captions.table is not None:
        del values["captions"]["table"]["path"]
    if dataset.hub is not None:
        values["hub"]["filters"] = dict(dataset.hub.filters)
        del values["hub"]["name"]
    del values["root"], values["quarantine"]
    return values


def dataset_notices(data: DataConfig, validation: ValidationConfig, objective: ObjectiveConfig) -> tuple[str, ...]:
    """What is worth saying about keys that have no effect here. Raises ConfigError when the file cannot be read."""
    listed = listed_entries(data)
    entries = [entry for entry in listed.entries if not _disabled(entry)] if listed else []
    notices = [notice for entry in entries for notice in entry_notices(entry, data, objective)]
    return (*notices, *_eval_notices(entries, validation))


def _eval_notices(entries: Sequence[DatasetEntry], validation: ValidationConfig) -> list[str]:
    """Eval sets that are never measured, and settings of measuring without an eval set."""
    sets = [entry.id for entry in entries if is_eval(entry)]
    if sets:
        if validation.eval_loss_disable:
            return [f"eval set {', '.join(sets)} is never measured: eval_loss_disable is true"]
        wanted = validation.eval_dataset_id
        others = [name for name in sets if wanted not in (None, name)]
        return [f"eval set {', '.join(others)} is never measured: eval_dataset_id is {wanted}"] if others else []
    fields = type(validation).model_fields
    asked = [name for name in MEASURING if getattr(validation, name) != fields[name].default]
    if not asked:
        return []
    verb = "has" if len(asked) == 1 else "have"
    return [f"{', '.join(asked)} {verb} no effect: there is no data set of dataset_type eval"]


def listed_entries(data: DataConfig) -> Entries | None:
    """The entries as written, or None when there is no list."""
    if data.datasets:
        return Entries(list(data.datasets), [Place(Document("datasets", None, {}))] * len(data.datasets))
    if data.data_backend_config is not None:
        document = read_document(data.data_backend_config)
        raw = document.data
        if isinstance(raw, dict) and set(raw) == {"datasets"}:
            return read_entries(raw["datasets"], document, ("datasets",))
        return read_entries(raw, document)
    return None


def _disabled(entry: DatasetEntry) -> bool:
    return entry.disabled or entry.disable
