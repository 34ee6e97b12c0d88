"""Clips and captions to latents and prompt embeddings on disk. Whatever is there already is not made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from pathlib import Path

from ltxtrain.caching.encoders import Encoders
from ltxtrain.config import CacheRule
from ltxtrain.data.cache_decode import Decoder
from ltxtrain.data.cache_fill import Encode, Item, Task, fill, missing_keys, regrouped
from ltxtrain.data.cache_groups import Group, Place, grouped
from ltxtrain.data.cache_keys import PromptsRule, latents_rule, later, text_rules
from ltxtrain.data.claims import POLL_SECONDS, Claims
from ltxtrain.data.frames import DECODER_VERSION, ClipFault, cut_of
from ltxtrain.data.prepared import OnDemand, Prepared, Source, Tensors
from ltxtrain.data.store import Entry
from ltxtrain.data.writer import Encoded, Writer
from ltxtrain.errors import DataError
from ltxtrain.events import LATENTS, TEXTS, Event, MemoryMeasured, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.facts.media_memo import NOT_REMEMBERED as PASSING
from ltxtrain.facts.quarantine import add_quarantine, quarantined
from ltxtrain.learn.device import DTYPES
from ltxtrain.learn.resume import peek_step
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.arithmetic import takes_tf32
from ltxtrain.model.folder import COMPONENTS, locate_model
from ltxtrain.model.text import MAX_TOKENS
from ltxtrain.plan.fingerprint import known_digests, media_digests
from ltxtrain.plan.folder import RunFolder
from ltxtrain.plan.order import order_of
from ltxtrain.plan.records import Plan, Sample
from ltxtrain.training.memory import measured
from ltxtrain.units import counted

KEPT = "everything encoded so far is kept"
NAMED_AT_MOST = 20
MEDIA_STAGE = "media digests"
TOLD_EVERY_S = 0.2


class FaultyClips(DataError):
    """Clips that cannot be decoded. They have gone or are on the quarantine list now, so a new plan leaves them out."""


def iter_precompute(plan: Plan, stop: StopFlag) -> Generator[Event, None, Prepared]:
    """Fill the cache for ``plan`` and return what reads it. Stops between two groups when ``stop`` is set.

    The text encoder and the VAE are loaded one after the other, and only when there is something to encode. Raises
    ``DataError`` for clips that cannot be decoded, once all others are encoded: ``FaultyClips`` where a new plan helps.
    """
    claims = Claims(plan.cache_dir, lambda: stop.requested)
    yield from _enter(claims, stop)
    yield StageStarted("model")
    started = time.perf_counter()
    with stop.at_once("nothing was encoded yet"):
        model = locate_model(plan.config.model, plan.cache_dir)
        digests = {part: model.digest(part) for part in COMPONENTS}
    yield StageDone("model", time.perf_counter() - started, model.name)
    run = Filling(plan, Encoders(plan, model), claims, digests)
    try:
        yield from run.fill_prompts(stop)
        yield from run.fill_latents(stop)
    finally:
        run.release()
        claims.release_all()
    return run.prepared()


def _enter(claims: Claims, stop: StopFlag) -> Generator[Event, None, None]:
    if not claims.enter_cache():
        yield Notice("another process is pruning the cache; waiting for it")
        while not claims.enter_cache():
            stop.check("nothing was encoded yet")
            time.sleep(POLL_SECONDS)


class Filling:
    """The rules of one plan: which entry belongs to what, which are encoded together, and which not before training."""

    def __init__(self, plan: Plan, encoders: Encoders, claims: Claims, digests: Mapping[str, str]) -> None:
        self.plan, self.encoders, self.claims, self.digests = plan, encoders, claims, digests
        self.rules = {dataset.id: dataset.cache for dataset in plan.datasets}
        self.cut_later = _cut_later(plan)
        vae_dtype = DTYPES[plan.config.precision.vae_dtype]
        self.latents_rule = latents_rule(plan, digests, DECODER_VERSION, tf32=encoders.tf32(vae_dtype))
        precision = plan.config.precision
        self.prompts_rule = PromptsRule(
            plan.cache_dir,
            digests,
            str(encoders.dtype),
            MAX_TOKENS,
            precision.text_encoder_1_precision,
            encoders.tf32(encoders.dtype),
        )
        self.text_rules = text_rules(plan)
        self.decoder: Decoder | None = None
        self.at_once = 1  # clips that are known to be decoded one after the other
        self.cut: list[str] = []
        self.measured: list[MemoryMeasured] = []
        self.faulty: dict[str, tuple[Sample, DataError]] = {}
        self.text_groups = grouped(self.text_rules, self.prompts_rule.entry, self._text_place)
        self.sample_groups: list[Group[Sample]] = []

    def _text_place(self, text: str) -> Place:
        rule = self.text_rules[text]
        return Place(later(rule), rule.batch_size)

    def _sample_place(self, sample: Sample) -> Place:
        size = 1 if self.plan.config.cache.vae_enable_slicing else self._rule(sample).batch_size
        return Place((sample.dataset, sample.bucket), size)

    def _rule(self, sample: Sample) -> CacheRule:
        return self.rules.get(sample.dataset, CacheRule())

    def _later(self, sample: Sample) -> bool:
        return later(self._rule(sample)) or (sample.dataset in self.cut_later)

    def _decoder(self) -> Decoder:
        if self.decoder is None:
            samples = (*self.plan.samples, *self.plan.eval_samples)
            self.decoder = Decoder(max(cut_of(sample).bytes for sample in samples), self.at_once)
        return self.decoder

    def release(self) -> None:
        """Let go of models and children. They come back when they are needed."""
        self.encoders.release()
        if self.decoder is not None:
            self.decoder.close()
            self.decoder = None

    def fill_prompts(self, stop: StopFlag) -> Generator[Event, None, None]:
        """The embeddings of all texts that are not left for training."""
        groups = [group for group in self.text_groups if not later(self.text_rules[group.items[0]])]
        with stop.at_once(KEPT):
            missing = missing_keys((entry for group in groups for entry in group.entries), set())
            groups = _largest_first(groups, missing)
        task = Task(TEXTS, groups, missing, self.encode_texts, _caption_name, self.encoders.batches.told)
        yield from self._fill(task, "texts", self.encoders.load_text, stop)
        yield from map(Notice, self.encoders.told_of_text)
        yield from (Notice(sentence, "warning") for sentence in self._taken_cut())

    def fill_latents(self, stop: StopFlag) -> Generator[Event, None, None]:
        """The latents of all samples that are not left for training."""
        samples = yield from self._read_media(stop)
        with stop.at_once(KEPT):
            self.sample_groups = grouped(samples, self.latents_rule.entry, self._sample_place)
            groups = [group for group in self.sample_groups if not self._later(group.items[0])]
            scanned = {entry.key for group in groups for sample, entry in group if self._rule(sample).scanned}
            missing = missing_keys((entry for group in groups for entry in group.entries), scanned)
            groups = _largest_first(groups, missing)
        self.at_once = len(missing)
        told = self.encoders.batches.told
        task = Task(LATENTS, groups, missing, self.encode_samples, _sample_name, told, scanned)
        yield from self._fill(task, "clips", self.encoders.load_vae, stop)
        self.at_once = 1
        if self.faulty:
            raise self._told_faulty()

    def _read_media(self, stop: StopFlag) -> Generator[Event, None, list[Sample]]:
        """The digest of each clip, which is part of its entry's key. A clip that has gone since the plan was made is a
        faulty one like any other; the samples of the others are returned."""
        samples = (*self.plan.samples, *self.plan.eval_samples)
        first = {sample.path: sample for sample in reversed(samples)}
        yield StageStarted(MEDIA_STAGE, len(first), 0, "clips")
        started = last = time.perf_counter()
        for number, (path, digest) in enumerate(media_digests(samples, self.plan.cache_dir / "digests"), 1):
            if isinstance(digest, str):
                self.latents_rule.know(path, digest)
            else:
                error = ClipFault(f"{path} cannot be read: {digest.detail}", digest.reason)
                self.faulty[path] = (first[path], error)
            if time.perf_counter() - last > TOLD_EVERY_S or number == len(first):
                yield StageProgress(MEDIA_STAGE, number)
                last = time.perf_counter()
            stop.check(KEPT)
        yield StageDone(MEDIA_STAGE, time.perf_counter() - started, counted(len(first), "clip"))
        return [sample for sample in samples if sample.path not in self.faulty]

    def _fill(
        self, task: Task[Item], unit: str, load: Callable[[], None], stop: StopFlag
    ) -> Generator[Event, None, None]:
        total, missing = sum(len(group.entries) for group in task.groups), len(task.missing)
        yield StageStarted(task.stage, total, total - missing, unit)
        started, encoded, faulty = time.perf_counter(), 0, len(self.faulty)
        cache = self.plan.config.cache
        if missing:
            self.encoders.meter.enter(task.stage)
            with stop.at_once(KEPT):
                load()
            with Writer(cache.write_batch_size, cache.compress_disk_cache, self._committed) as writer:
                filling = fill(task, self.claims, writer, lambda: stop.check(KEPT))
                encoded = yield from self._probed(task.stage, _tried(task.groups[0]), filling)
            if encoded:
                yield self._measured(task.stage, "run")  # before the model goes: not every device keeps peaks
            self.release()
        faulty = len(self.faulty) - faulty
        detail = f"{encoded} encoded, {total - encoded - faulty} kept" + (f", {faulty} faulty" if faulty else "")
        yield StageDone(task.stage, time.perf_counter() - started, detail)

    def _probed(self, stage: str, detail: str, events: Generator[Event, None, int]) -> Generator[Event, None, int]:
        """The events of filling, with what it took after the first group, which is the largest."""
        tried = False
        while True:
            try:
                event = next(events)
            except StopIteration as finished:
                encoded: int = finished.value
                return encoded
            yield event
            if not tried and isinstance(event, StageProgress):
                tried = True
                yield self._measured(stage, "probe", detail)

    def _measured(self, stage: str, where: str, detail: str = "") -> MemoryMeasured:
        self.measured.append(measured(self.plan, stage, self.encoders.meter, where, detail))
        return self.measured[-1]

    def _committed(self, batch: Sequence[Encoded]) -> None:
        for encoded in batch:
            self.claims.release(encoded.claim)

    def encode_texts(self, groups: Iterator[Group[str]]) -> Iterator[tuple[Group[str], dict[Entry, Tensors]]]:
        for group in groups:
            tensors = self.encoders.texts(group.items, self.cut)
            yield group, dict(zip(group.entries, tensors, strict=True))

    def encode_samples(self, groups: Iterator[Group[Sample]]) -> Iterator[tuple[Group[Sample], dict[Entry, Tensors]]]:
        """Decoding runs ahead. A clip that cannot be decoded is set aside, and the others go on."""
        for group, clips in regrouped(groups, self._decoder().stream):
            good = {}
            for (sample, entry), frames in zip(group, clips, strict=True):
                if isinstance(frames, DataError):
                    self.faulty[sample.path] = (sample, frames)
                else:
                    good[entry] = frames
            first = group.items[0]
            pieces = {"tiled": self.latents_rule.tiled(first), "framewise": self.latents_rule.framewise(first)}
            tensors = self.encoders.clips(first.bucket.key, list(good.values()), **pieces)
            yield group, dict(zip(good, tensors, strict=True))

    def _taken_cut(self) -> list[str]:
        """What is to be said of texts that were cut since the last call."""
        told = [_told_cut(self.cut)] if self.cut else []
        self.cut.clear()
        return told

    def _told_faulty(self) -> DataError:
        """One error for all clips that could not be decoded, after those that may be are put on the quarantine list."""
        listing = {dataset.id for dataset in self.plan.settled if dataset.quarantine}
        listed = [
            quarantined(Path(path), getattr(error, "reason", "damaged"), error.message)
            for path, (sample, error) in self.faulty.items()
            if sample.dataset in listing and getattr(error, "reason", "damaged") not in PASSING and Path(path).exists()
        ]
        if listed:
            add_quarantine(self.plan.cache_dir, listed)
        errors = [error for _, error in self.faulty.values()]
        lines = [error.message for error in errors[:NAMED_AT_MOST]]
        if len(errors) > 1:
            lines = [f"{counted(len(errors), 'clip')} cannot be decoded", *lines]
        if len(errors) > NAMED_AT_MOST:
            lines.append(f"and {len(errors) - NAMED_AT_MOST} more")
        gone = sum(sample.dataset in listing and not Path(path).exists() for path, (sample, _) in self.faulty.items())
        kind = FaultyClips if len(listed) + gone == len(errors) else DataError
        return kind("\n".join(lines), hint=errors[0].hint)

    def prepared(self) -> Prepared:
        """What reads all this in training, and encodes what is not there."""
        keeps_vae = any(later(rule) or rule.redrawn for rule in self.rules.values())
        keeps_text = any(later(rule) for rule in self.text_rules.values())
        compress = self.plan.config.cache.compress_disk_cache
        planned = {sample.id for sample in self.plan.samples + self.plan.eval_samples if not self._later(sample)}
        latents: Source[Sample] = Source(
            self.latents_rule.entry,
            self._on_demand(self.sample_groups, self.encode_samples, keeps_vae),
            expected=lambda sample: sample.id in planned and not self._rule(sample).redrawn,
            written=lambda sample: self._rule(sample).written,
            named=_sample_name,
            compress=compress,
        )
        prompts: Source[str] = Source(
            self.prompts_rule.entry,
            self._on_demand(self.text_groups, self.encode_texts, keeps_text),
            expected=lambda text: text in self.text_rules and not later(self.text_rules[text]),
            written=lambda text: text not in self.text_rules or self.text_rules[text].written,
            named=_caption_name,
            compress=compress,
        )
        prepared = Prepared(
            self.digests,
            latents,
            prompts,
            self.claims,
            release=self.release,
            told=self.encoders.batches.told,
        )
        prepared.measured = self.measured
        return prepared

    def _on_demand(
        self, groups: Sequence[Group[Item]], encode: Encode[Item], keeps: bool
    ) -> Callable[[Item, Entry], OnDemand[Item]]:
        """How an item is encoded in training: with the group that it would have been encoded with up front."""
        group_of = {entry.key: group for group in groups for entry in group.entries}

        def made(group: Group[Item]) -> Mapping[Entry, Tensors]:
            ((_, tensors),) = encode(iter([group]))
            if not keeps:
                self.release()
            if self.faulty:
                raise self._told_faulty()
            self.encoders.batches.told.extend(self._taken_cut())
            return tensors

        return lambda item, entry: OnDemand(group_of.get(entry.key) or Group((item,), (entry,)), made)


def used_entries(plan: Plan) -> set[Path]:
    """Where the entries lie that ``plan`` needs. Fetches nothing: the model has to be on this disk."""
    model = locate_model(plan.config.model, plan.cache_dir)
    digests = {part: model.digest(part) for part in COMPONENTS}
    precision = plan.config.precision
    text_dtype, vae_dtype = DTYPES[precision.mixed_precision], DTYPES[precision.vae_dtype]
    samples = (*plan.samples, *plan.eval_samples)
    known = known_digests(samples, plan.cache_dir / "digests")
    paths: set[Path] = set()
    for kind in ("cpu", "cuda"):  # entries of float32 depend on it, and another machine may have made them
        tf32 = [takes_tf32(kind, dtype, disabled=precision.disable_tf32) for dtype in (text_dtype, vae_dtype)]
        shown = (str(text_dtype), MAX_TOKENS, precision.text_encoder_1_precision, tf32[0])
        prompts = PromptsRule(plan.cache_dir, digests, *shown)
        latents = latents_rule(plan, digests, DECODER_VERSION, tf32=tf32[1])
        for path, digest in known.items():
            latents.know(path, digest)
        paths |= {prompts.entry(text).path for text in text_rules(plan)}
        paths |= {latents.entry(sample).path for sample in samples}
    return paths


def _cut_later(plan: Plan) -> set[str]:
    """The redrawn data sets that training will not ask for as the plan cuts them, which it does in its first epoch."""
    redrawn = {dataset.id for dataset in plan.datasets if dataset.role == "train" and dataset.cache.redrawn}
    if not redrawn:
        return set()
    order = order_of(plan)
    done = peek_step(RunFolder(plan.run_dir).checkpoints, plan.config.checkpoint.resume_from_checkpoint)
    begun = order[min(done, plan.steps - 1) * plan.accumulation].epoch > 0
    return redrawn if begun else redrawn - order.suppliers(0)


def _largest_first(groups: list[Group[Item]], missing: Set[str]) -> list[Group[Item]]:
    """Of the groups that are to be encoded, the one that takes the most memory comes first: when it does not fit,
    nothing has been waited for."""
    wanted = [group for group in groups if any(entry.key in missing for entry in group.entries)]
    largest = max(wanted, key=_size, default=None)
    return groups if largest is None else [largest, *(group for group in groups if group is not largest)]


def _tried(group: Group[Item]) -> str:
    """``2 x 480x480@49``, ``4 captions``."""
    first, count = group.items[0], len(group.items)
    return f"{count} x {first.bucket.key}" if isinstance(first, Sample) else counted(count, "caption")


def _size(group: Group[Item]) -> int:
    """The pixels of clips, the number of texts: these are all filled up to one length."""
    first, count = group.items[0], len(group.items)
    if not isinstance(first, Sample):
        return count
    return count * first.bucket.frames * first.bucket.width * first.bucket.height


def _sample_name(sample: Sample) -> str:
    return sample.id


def _caption_name(text: str) -> str:
    return f"caption {text[:60]!r}"


def _told_cut(cut: list[str]) -> str:
    first = f"{cut[0][:60]!r} ..."
    if len(cut) == 1:
        return f"one text is longer than {MAX_TOKENS} tokens and is cut: {first}"
    return f"{len(cut)} of the texts are longer than {MAX_TOKENS} tokens and are cut, such as {first}"
