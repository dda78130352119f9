"""Whole songs: modes, resuming after a kill, and requests that cannot be met."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind
from jukebox_deploy.errors import AudioError, ConfigError, EngineError, JukeboxError, LabelError, SamplingError
from jukebox_deploy.runtime.decode import encode_audio
from jukebox_deploy.runtime.events import DecodeProgress, LevelProgress, SongDecoded, SongWarning
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, read_record
from tests.runtime.fake_engine import FakeEngine, Faults, PowerCutError
from tests.runtime.song_cases import (
    FINGERPRINT,
    MODEL,
    MODELS,
    RATE,
    REQUESTS,
    TOP_SECOND,
    all_codes,
    plain_song,
    sample,
)

EVERY_STEP = SamplingOptions(slots=2, commit_seconds=0)
RESUME = replace(EVERY_STEP, resume=True)


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.wav"
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * 16 + 7)
    soundfile.write(path, audio, RATE, subtype="FLOAT")
    return path


def encoded(engine: FakeEngine, path: Path) -> list[np.ndarray]:
    audio = soundfile.read(path, dtype="float32")[0][: 20 * 16]
    return [encode_audio(engine, level, audio) for level in range(3)]


def test_primed_songs_go_on_from_the_prompt_at_every_level(prompt: Path, tmp_path: Path) -> None:
    request = SongRequest(Mode.PRIMED, 45 * TOP_SECOND, lyrics="after a prompt", seed=5, source=str(prompt))
    sample(FakeEngine(MODEL), [SongJob(request, tmp_path / "song")])
    engine = FakeEngine(MODEL)
    given = encoded(engine, prompt)
    codes = all_codes(tmp_path / "song")
    assert codes == plain_song(engine, request, given)
    assert [codes[level][: 20 * f] for level, f in ((2, 1), (1, 2), (0, 4))] == [given[i].tolist() for i in (2, 1, 0)]


def test_songs_with_the_same_prompt_share_its_codes_and_all_songs_one_decoder(prompt: Path, tmp_path: Path) -> None:
    request = SongRequest(Mode.PRIMED, 45 * TOP_SECOND, source=str(prompt))
    engine = FakeEngine(MODEL)
    sample(engine, [SongJob(replace(request, song=i), tmp_path / str(i)) for i in range(3)], EVERY_STEP)
    opened = Counter(runner.spec.name for runner in engine.runners)
    assert [opened[f"vqvae_encode_{level}"] for level in range(3)] == [1, 1, 1]
    assert opened["vqvae_decode_0"] == 1
    (encoder,) = [runner for runner in engine.runners if runner.spec.name == "vqvae_encode_2"]
    assert len(encoder.calls) == 1


def test_continued_songs_go_on_from_saved_codes(tmp_path: Path) -> None:
    first = SongJob(SongRequest(seconds=0.6, seed=6), tmp_path / "first")
    sample(FakeEngine(MODEL), [first])
    request = SongRequest(Mode.CONTINUE, 0.9, seed=7, source=str(first.folder), source_seconds=0.5)
    sample(FakeEngine(MODEL), [SongJob(request, tmp_path / "second")])
    kept = [np.array(codes[: 25 * f]) for codes, f in zip(all_codes(first.folder), (4, 2, 1), strict=True)]
    assert all_codes(tmp_path / "second") == plain_song(FakeEngine(MODEL), request, kept)


def test_upsampling_keeps_the_top_codes_and_samples_the_rest(tmp_path: Path) -> None:
    top_only = replace(EVERY_STEP, lowest_level=2)
    first = SongJob(SongRequest(seconds=0.6, seed=6), tmp_path / "first")
    sample(FakeEngine(MODEL), [first], top_only)
    assert [len(codes) for codes in all_codes(first.folder)] == [0, 0, 30]
    request = SongRequest(Mode.UPSAMPLE, seed=7, source=str(first.folder))
    engine = FakeEngine(MODEL)
    sample(engine, [SongJob(request, tmp_path / "second")])
    top = np.array(all_codes(first.folder)[2])
    given = [np.zeros(0, np.int64), np.zeros(0, np.int64), top]
    assert all_codes(tmp_path / "second") == plain_song(FakeEngine(MODEL), replace(request, seconds=0.6), given)
    assert [session.prior.level for session in engine.sessions] == [1, 0]


def test_a_song_sampled_to_the_top_only_can_be_taken_further_down(tmp_path: Path) -> None:
    job = SongJob(REQUESTS[0], tmp_path / "song")
    sample(FakeEngine(MODEL), [job], replace(EVERY_STEP, lowest_level=2))
    sample(FakeEngine(MODEL), [job], RESUME)
    assert all_codes(job.folder) == plain_song(FakeEngine(MODEL), REQUESTS[0])
    assert sorted(p.name for p in job.folder.glob("*.wav")) == ["level_0.wav", "level_2.wav"]


def test_the_sound_is_the_decoded_lowest_level(tmp_path: Path) -> None:
    events = sample(FakeEngine(MODEL), [SongJob(REQUESTS[1], tmp_path / "song")])
    decoded = events[-1]
    assert isinstance(decoded, SongDecoded)
    audio, rate = soundfile.read(decoded.wav.path)
    assert (rate, len(audio)) == (RATE, 17 * 16)
    assert decoded.wav.seconds == 17 * TOP_SECOND


def test_every_level_sounds_as_soon_as_its_codes_are_there(tmp_path: Path) -> None:
    jobs = [SongJob(request, tmp_path / str(number)) for number, request in enumerate(REQUESTS[:2])]
    events = sample(FakeEngine(MODEL), jobs, replace(EVERY_STEP, every_level=True))
    decoded = [(event.level, event.song) for event in events if isinstance(event, SongDecoded)]
    assert decoded == [(level, song) for level in (2, 1, 0) for song in (0, 1)]
    last_of_top = max(i for i, event in enumerate(events) if isinstance(event, LevelProgress) and event.level == 2)
    first_of_next = min(i for i, event in enumerate(events) if isinstance(event, LevelProgress) and event.level == 1)
    top_sounds = [i for i, event in enumerate(events) if isinstance(event, SongDecoded) and event.level == 2]
    assert all(last_of_top < place < first_of_next for place in top_sounds)
    for job in jobs:
        sounds = sorted(path.name for path in job.folder.glob("*.wav"))
        assert sounds == ["level_0.wav", "level_1.wav", "level_2.wav"]
        assert len({soundfile.info(job.folder / name).frames for name in sounds}) == 1


def test_upper_codes_of_each_window_are_its_own(tmp_path: Path) -> None:
    engine = FakeEngine(MODEL)
    sample(engine, [SongJob(REQUESTS[0], tmp_path / "song")])
    runner = next(r for r in engine.runners if r.spec.name == "condition_0")
    upper = all_codes(tmp_path / "song")[1]
    # 200 codes, windows of 32 every 16, two codes per upper code.
    assert [call["upper_codes"][0].tolist() for call in runner.calls] == [
        upper[s // 2 : s // 2 + 16] for s in [*range(0, 168, 16), 168]
    ]


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_song_is_the_same_wherever_it_was_cut(model: str, tmp_path: Path) -> None:
    jobs_of = lambda name: [SongJob(r, tmp_path / name / str(i)) for i, r in enumerate(REQUESTS[:3])]  # noqa: E731
    expected = [plain_song(FakeEngine(MODELS[model]), request) for request in REQUESTS[:3]]
    whole = FakeEngine(MODELS[model])
    sample(whole, jobs_of("whole"), EVERY_STEP)
    steps = sum(session.steps for session in whole.sessions)
    cuts = random.Random(model).sample(range(steps), 8)
    for cut in cuts:
        jobs = jobs_of(str(cut))
        with pytest.raises(PowerCutError):
            sample(FakeEngine(MODELS[model], Faults(steps_until_power_cut=cut)), jobs, EVERY_STEP)
        sample(FakeEngine(MODELS[model]), jobs, RESUME)
        assert [all_codes(job.folder) for job in jobs] == expected, f"cut after {cut} steps"


def _jobs(folder: Path, count: int) -> list[SongJob]:
    return [SongJob(request, folder / str(i)) for i, request in enumerate(REQUESTS[:count])]


@pytest.mark.parametrize(("model", "slots", "songs"), [*((model, 2, 5) for model in MODELS), ("lyrics_encoded", 3, 4)])
def test_a_song_meets_the_same_company_wherever_it_was_cut(model: str, slots: int, songs: int, tmp_path: Path) -> None:
    """Where sums depend on how many slots are computed together, windows that are done take their time once more."""

    def engine(faults: Faults | None = None) -> FakeEngine:
        return FakeEngine(MODELS[model], faults, batch_invariant=False)

    options = replace(EVERY_STEP, slots=slots)
    whole, jobs = engine(), _jobs(tmp_path / "whole", songs)
    sample(whole, jobs, options)
    expected = [all_codes(job.folder) for job in jobs]
    steps = sum(session.steps for session in whole.sessions)
    for cut in random.Random(model).sample(range(steps), 4):
        jobs = _jobs(tmp_path / str(cut), songs)
        with pytest.raises(PowerCutError):
            sample(engine(Faults(steps_until_power_cut=cut)), jobs, options)
        if cut % 2:  # and once more, somewhere behind it
            with suppress(PowerCutError):
                sample(engine(Faults(steps_until_power_cut=40)), jobs, replace(options, resume=True))
        sample(engine(), jobs, replace(options, resume=True))
        assert [all_codes(job.folder) for job in jobs] == expected, f"cut after {cut} steps"


def test_windows_that_are_done_are_not_computed_again(tmp_path: Path) -> None:
    jobs = _jobs(tmp_path, 3)
    whole, again = (FakeEngine(MODEL, batch_invariant=False) for _ in range(2))
    sample(whole, jobs, EVERY_STEP)
    last = jobs[0].folder / "codes_0.npy"
    np.save(last, np.load(last)[:-1])
    sample(again, jobs, RESUME)
    (session,) = again.sessions
    assert session.slots == whole.sessions[-1].slots
    assert session.steps == 8  # of the last window alone
    conditions = [runner for runner in again.runners if runner.spec.kind is GraphKind.CONDITION]
    assert [len(runner.calls) for runner in conditions] == [1]


def test_a_batch_is_resumed_as_a_whole(tmp_path: Path) -> None:
    """With other songs or slots the sums would be others; of a batch-invariant engine they would not."""
    jobs = _jobs(tmp_path, 3)
    with pytest.raises(PowerCutError):
        sample(FakeEngine(MODEL, Faults(steps_until_power_cut=30), batch_invariant=False), jobs, EVERY_STEP)
    for fewer, options in ((jobs[:2], RESUME), (jobs, replace(RESUME, slots=3))):
        with pytest.raises(SamplingError, match=r"batch was 'song 1 of 3, 2 at a time \(.*with the same slots"):
            sample(FakeEngine(MODEL, batch_invariant=False), fewer, options)
    sample(FakeEngine(MODEL, batch_invariant=False), jobs, RESUME)


def test_the_slots_that_count_are_those_of_the_graphs(tmp_path: Path) -> None:
    """More than they take may be asked for; graphs that take another number compute otherwise."""

    def engine(most: int, faults: Faults | None = None) -> FakeEngine:
        return FakeEngine(MODEL, faults, slots=(1, 1, most), batch_invariant=False)

    jobs = _jobs(tmp_path, 3)
    with pytest.raises(PowerCutError):
        sample(engine(2, Faults(steps_until_power_cut=30)), jobs, EVERY_STEP)
    with pytest.raises(SamplingError, match=r"batch was 'song 1 of 3, 2 at a time .* is now 'song 1 of 3, 3 at a time"):
        sample(engine(3), jobs, replace(RESUME, slots=3))
    sample(engine(2), jobs, replace(RESUME, slots=3))


def test_songs_of_a_batch_keep_their_order(tmp_path: Path) -> None:
    requests = [SongRequest(seconds=30 * TOP_SECOND, seed=seed) for seed in range(3)]
    jobs = [SongJob(request, tmp_path / str(request.seed)) for request in requests]
    with pytest.raises(PowerCutError):
        sample(FakeEngine(MODEL, Faults(steps_until_power_cut=30), batch_invariant=False), jobs, EVERY_STEP)
    with pytest.raises(SamplingError, match=r"batch was 'song 3 of 3, .* is now 'song 1 of 3"):
        sample(FakeEngine(MODEL, batch_invariant=False), jobs[::-1], RESUME)


def test_a_song_that_has_all_its_codes_needs_no_batch(tmp_path: Path) -> None:
    """It is decoded alone, and songs may join it."""
    jobs = _jobs(tmp_path, 3)
    sample(FakeEngine(MODEL, batch_invariant=False), jobs[:2], EVERY_STEP)
    before = all_codes(jobs[1].folder)
    again = FakeEngine(MODEL, batch_invariant=False)
    sample(again, jobs[1:2], replace(RESUME, every_level=True))
    assert not again.sessions
    sample(FakeEngine(MODEL, batch_invariant=False), jobs, RESUME)
    assert all_codes(jobs[1].folder) == before
    assert [len(codes) for codes in all_codes(jobs[2].folder)] == [124, 62, 31]


def test_a_song_cut_again_and_again_still_comes_out_the_same(tmp_path: Path) -> None:
    job, lengths = SongJob(REQUESTS[0], tmp_path / "song"), random.Random(0)
    raw_lyric_tokens = 0
    for _ in range(200):
        try:
            sample(FakeEngine(MODEL, Faults(steps_until_power_cut=lengths.randint(5, 40))), [job], RESUME)
            break
        except PowerCutError:
            raw_lyric_tokens += (np.load(job.folder / "codes_2.npy") < 0).any()
    assert all_codes(job.folder) == plain_song(FakeEngine(MODEL), REQUESTS[0])
    assert raw_lyric_tokens, "the cuts never fell behind a lyric token, so nothing was shown about them"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_codes_on_disk_are_never_drawn_again(model: str, level: int, tmp_path: Path) -> None:
    job = SongJob(REQUESTS[0], tmp_path / "song")
    options = replace(RESUME, lowest_level=level)
    if level < 2:
        sample(FakeEngine(MODELS[model]), [job], replace(options, lowest_level=level + 1))
    with pytest.raises(PowerCutError):  # in the first window, before anything of it was prefilled
        sample(FakeEngine(MODELS[model], Faults(steps_until_power_cut=13)), [job], options)
    before = all_codes(job.folder)[level]
    assert before
    sample(FakeEngine(MODELS[model], Faults(rounding="of another engine")), [job], options)
    assert all_codes(job.folder)[level][: len(before)] == before


def test_a_primed_song_is_resumed_without_its_prompt(prompt: Path, tmp_path: Path) -> None:
    request = SongRequest(Mode.PRIMED, 45 * TOP_SECOND, seed=5, source=str(prompt))
    expected = plain_song(FakeEngine(MODEL), request, encoded(FakeEngine(MODEL), prompt))
    job = SongJob(request, tmp_path / "song")
    with pytest.raises(PowerCutError):
        sample(FakeEngine(MODEL, Faults(steps_until_power_cut=30)), [job], EVERY_STEP)
    prompt.unlink()
    sample(FakeEngine(MODEL), [job], RESUME)
    assert all_codes(job.folder) == expected


def test_a_kill_while_committing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, save, left = SongJob(REQUESTS[0], tmp_path / "song"), np.save, [60]

    def torn_save(file, codes):
        left[0] -= 1
        if left[0] == 0:
            file.write(b"half a fi")
            raise PowerCutError
        save(file, codes)

    monkeypatch.setattr(np, "save", torn_save)
    with pytest.raises(PowerCutError):
        sample(FakeEngine(MODEL), [job], EVERY_STEP)
    assert {p.name for p in job.folder.iterdir()} == {".lock", "song.json", *(f"codes_{i}.npy" for i in range(3))}
    sample(FakeEngine(MODEL), [job], RESUME)
    assert all_codes(job.folder) == plain_song(FakeEngine(MODEL), REQUESTS[0])


def test_resuming_nothing_begins_and_resuming_a_finished_song_changes_nothing(tmp_path: Path) -> None:
    job = SongJob(REQUESTS[1], tmp_path / "song")
    sample(FakeEngine(MODEL), [job], RESUME)
    first = all_codes(job.folder)
    engine = FakeEngine(MODEL)
    sample(engine, [job], RESUME)
    assert all_codes(job.folder) == first
    assert engine.sessions == []


def test_settings_are_saved(tmp_path: Path) -> None:
    sample(FakeEngine(MODEL), [SongJob(REQUESTS[3], tmp_path / "song")])
    record = read_record(tmp_path / "song")
    assert (record.request, record.fingerprint, record.model) == (REQUESTS[3], FINGERPRINT, MODEL.name)
    assert record.lengths.totals == (96, 48, 24)
    assert json.loads((tmp_path / "song" / "song.json").read_text())["request"]["levels"][0]["top_k"] == 3


def test_warnings_come_once_and_first(tmp_path: Path) -> None:
    request = SongRequest(seconds=0.5, artist="Nobody", lyrics="smile \N{GRINNING FACE}")
    events = sample(FakeEngine(MODEL), [SongJob(request, tmp_path / "song")])
    warnings = [event for event in events if isinstance(event, SongWarning)]
    assert events[: len(warnings)] == warnings
    assert len({w.text for w in warnings}) == len(warnings) == 2


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (SongRequest(seconds=0.01), SamplingError, "less than one top-level code"),
        (
            SongRequest(seconds=0.1),
            SamplingError,
            "level 0 needs a song of at least 0.4 s, but this one has 0.10 s: --seconds 0.4, or --low",
        ),
        (
            SongRequest(seconds=1e308),
            LabelError,
            "--seconds: a song of 1e\\+308 s is longer than the model supports: 0.20",
        ),
        (SongRequest(seconds=1e9, total_seconds=50), LabelError, "--seconds: a song of 1e\\+09 s is longer"),
        (SongRequest(seconds=1.0, total_seconds=1e300), LabelError, "--total-seconds: a song of 1e\\+300 s is longer"),
        (SongRequest(seconds=1.0, offset_seconds=1e308), LabelError, "--offset and --seconds: a song of 1e\\+308 s"),
        (
            SongRequest(Mode.PRIMED, 1.0, source="a", source_seconds=1e308),
            SamplingError,
            "--prompt-seconds: 1e\\+308 s",
        ),
        (SongRequest(seconds=61.0), LabelError, "longer than the model supports"),
        (SongRequest(seconds=1.0, total_seconds=0.9), SamplingError, "after the song's end"),
        (SongRequest(seconds=1.0, total_seconds=3.0, offset_seconds=2.5), SamplingError, "after the song's end"),
        (SongRequest(seconds=1.0, artist="#99"), LabelError, "no artist #99"),
        (SongRequest(Mode.PRIMED, 1.0, source="nowhere.wav"), AudioError, "no such sound file"),
        (SongRequest(Mode.CONTINUE, 1.0, source="nowhere"), SamplingError, "no such song folder"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(
    request_: SongRequest, error: type[JukeboxError], message: str, tmp_path: Path
) -> None:
    good = SongJob(REQUESTS[0], tmp_path / "good")
    with pytest.raises(error, match=message):
        sample(FakeEngine(MODEL), [good, SongJob(request_, tmp_path / "bad")])
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_told_no_time_makes_songs_of_a_day_at_most(tmp_path: Path) -> None:
    job = SongJob(SongRequest(seconds=1e8), tmp_path / "song")
    with pytest.raises(SamplingError, match=r"--seconds: 1e\+08 s is more than a day; give at most 86400"):
        sample(FakeEngine(MODELS["unlabelled"]), [job])


@pytest.mark.parametrize(
    ("lowest", "remedy"), [(0, r"continue that song first \(--continue, --seconds 0.4\)\.$"), (1, "--continue")]
)
def test_top_codes_too_few_to_upsample(lowest: int, remedy: str, tmp_path: Path) -> None:
    first = SongJob(SongRequest(seconds=0.1), tmp_path / "first")
    sample(FakeEngine(MODEL), [first], SamplingOptions(lowest_level=2))
    job = SongJob(SongRequest(Mode.UPSAMPLE, source=str(first.folder)), tmp_path / "second")
    with pytest.raises(
        SamplingError, match=f"level {lowest} needs a song of at least 0.4 s, but this one has 0.10 s: .*{remedy}"
    ):
        sample(FakeEngine(MODEL), [job], SamplingOptions(lowest_level=lowest))


@pytest.mark.parametrize("mode", [Mode.PRIMED, Mode.CONTINUE, Mode.UPSAMPLE])
def test_less_than_one_code_of_a_source_is_not_the_same_as_no_source(mode: Mode, prompt: Path, tmp_path: Path) -> None:
    first = SongJob(SongRequest(seconds=0.6), tmp_path / "first")
    sample(FakeEngine(MODEL), [first])
    source = prompt if mode is Mode.PRIMED else first.folder
    seconds = None if mode is Mode.UPSAMPLE else 0.8
    job = SongJob(SongRequest(mode, seconds, source=str(source), source_seconds=0.01), tmp_path / "second")
    with pytest.raises(SamplingError, match=r"--prompt-seconds 0.01 is less than one top-level code \(0.0200 s\)"):
        sample(FakeEngine(MODEL), [job])
    assert not job.folder.exists()


@pytest.mark.parametrize("mode", [Mode.CONTINUE, Mode.UPSAMPLE])
def test_codes_of_another_checkpoint_are_refused_and_those_of_another_engine_are_not(
    mode: Mode, tmp_path: Path
) -> None:
    first = SongJob(SongRequest(seconds=0.6), tmp_path / "first")
    sample(FakeEngine(MODEL), [first])
    seconds = 0.8 if mode is Mode.CONTINUE else None
    job = SongJob(SongRequest(mode, seconds, source=str(first.folder)), tmp_path / "second")
    for fingerprint in (Fingerprint("engine 1", "checkpoint 2"), Fingerprint("engine 2", "checkpoint 2")):
        with pytest.raises(SamplingError, match=r"another model: made with lyrics_in_sequence, .* use the bundle that"):
            list(SongSampler(FakeEngine(MODEL), fingerprint).sample([job]))
    assert not job.folder.exists()
    list(SongSampler(FakeEngine(MODEL), Fingerprint("engine 2", FINGERPRINT.checkpoint)).sample([job]))
    assert read_record(job.folder).lengths.given[2] == 30


def test_the_decoder_is_timed_from_its_beginning(tmp_path: Path) -> None:
    """The first chunk is work too: counted from after it, the next ones, done meanwhile, would take no time."""
    events = sample(FakeEngine(MODEL), [SongJob(REQUESTS[1], tmp_path / "song")])
    decoding = [event.done for event in events if isinstance(event, DecodeProgress)]
    assert decoding[0] == 0
    assert decoding[-1] == 17 * 4


@pytest.mark.parametrize(
    ("request_", "lost"),
    [
        (SongRequest(seconds=0.5, lyrics="la la la"), None),
        (SongRequest(seconds=0.5, lyrics="la la la la"), "3 of the 11 characters"),
        (SongRequest(seconds=4.0, lyrics="la " * 20), None),
        (SongRequest(seconds=4.0, lyrics="la " * 40), "characters"),
        (SongRequest(seconds=0.5, lyrics="la " * 40, total_seconds=50.0, offset_seconds=20.0), None),
        (SongRequest(seconds=0.5, lyrics="la " * 40, total_seconds=2.0), "characters"),
    ],
)
def test_lyrics_that_no_window_sees_are_told_of(request_: SongRequest, lost: str | None, tmp_path: Path) -> None:
    events = sample(FakeEngine(MODEL), [SongJob(request_, tmp_path / "song")])
    warnings = [event.text for event in events if isinstance(event, SongWarning)]
    assert len(warnings) == (0 if lost is None else 1)
    if lost is not None:
        assert f"{lost} of the lyrics are seen by no window" in warnings[0] or lost in warnings[0]


def test_a_model_without_lyrics_says_so(tmp_path: Path) -> None:
    request = SongRequest(seconds=0.5, lyrics="la")
    events = sample(FakeEngine(MODELS["unlabelled"]), [SongJob(request, tmp_path / "song")])
    warnings = [event.text for event in events if isinstance(event, SongWarning)]
    assert warnings == ["The model unlabelled takes no lyrics; they are ignored."]


def test_sources_that_leave_nothing_to_do_are_refused(prompt: Path, tmp_path: Path) -> None:
    primed = SongRequest(Mode.PRIMED, 20 * TOP_SECOND, source=str(prompt))
    with pytest.raises(SamplingError, match=r"already gives 0.40 s of the 0.40 s .*--prompt-seconds"):
        sample(FakeEngine(MODEL), [SongJob(primed, tmp_path / "song")])
    first = SongJob(SongRequest(seconds=0.6), tmp_path / "first")
    sample(FakeEngine(MODEL), [first])
    upsampled = SongRequest(Mode.UPSAMPLE, 0.8, source=str(first.folder))
    with pytest.raises(SamplingError, match="has 30 top-level codes, but 40 are needed"):
        sample(FakeEngine(MODEL), [SongJob(upsampled, tmp_path / "second")])


def test_a_begun_song_is_neither_overwritten_nor_mixed(tmp_path: Path) -> None:
    job = SongJob(REQUESTS[1], tmp_path / "song")
    sample(FakeEngine(MODEL), [job])
    with pytest.raises(SamplingError, match="already holds a song; resume it"):
        sample(FakeEngine(MODEL), [job])
    other = SongJob(replace(REQUESTS[1], seed=8, lyrics="Ah"), job.folder)
    with pytest.raises(SamplingError, match=r"lyrics was 'Oh', is now 'Ah'; seed was 1, is now 8"):
        sample(FakeEngine(MODEL), [other], RESUME)
    levels = (LevelSettings(), LevelSettings(0.8, top_k=5))
    first = SongJob(replace(REQUESTS[1], levels=(LevelSettings(), LevelSettings())), tmp_path / "cool")
    sample(FakeEngine(MODEL), [first])
    cooler = SongJob(replace(first.request, levels=levels), first.folder)
    told = "temperature was 0.99, is now 0.8 at level 1; top_k was not given, is now 5 at level 1"
    with pytest.raises(SamplingError, match=told):
        sample(FakeEngine(MODEL), [cooler], RESUME)
    sampler = SongSampler(FakeEngine(MODEL), Fingerprint("engine 2", "checkpoint 1"), options=RESUME)
    with pytest.raises(SamplingError, match="engine was 'engine 1', is now 'engine 2'"):
        list(sampler.sample([job]))


def test_two_songs_cannot_share_a_folder(tmp_path: Path) -> None:
    jobs = [SongJob(request, tmp_path / "song") for request in REQUESTS[:2]]
    with pytest.raises(SamplingError, match="another run is working on this song"):
        sample(FakeEngine(MODEL), jobs)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_the_prior_is_named(tmp_path: Path) -> None:
    top_only = JukeboxConfig("top only", MODEL.vqvae, MODEL.priors[2:])
    job = SongJob(REQUESTS[0], tmp_path / "song")
    with pytest.raises(ConfigError, match="no prior for level 1"):
        sample(FakeEngine(top_only), [job])
    sample(FakeEngine(top_only), [job], SamplingOptions(lowest_level=2))
    assert all_codes(job.folder)[2] == plain_song(FakeEngine(MODEL), REQUESTS[0])[2]


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("step_0", "sampling level 0 needs step_0, and the bundle has vqvae_encode_0"),
        ("condition_1", "sampling level 1 needs condition_1"),
        ("vqvae_decode_0", "decoding level 0 needs vqvae_decode_0"),
        ("vqvae_decode_2", "decoding level 2 needs vqvae_decode_2"),
    ],
)
def test_graphs_that_are_needed_at_the_end_are_missed_at_the_beginning(
    tmp_path: Path, missing: str, sentence: str
) -> None:
    engine = FakeEngine(MODEL)
    del engine.graphs[missing]
    with pytest.raises(EngineError, match=sentence):
        sample(engine, [SongJob(REQUESTS[0], tmp_path / "song")], replace(EVERY_STEP, every_level=True))
    assert not engine.sessions
    assert list(tmp_path.iterdir()) == []
    if missing == "vqvae_decode_2":
        sample(engine, [SongJob(REQUESTS[0], tmp_path / "song")])


@pytest.mark.parametrize("level", [-1, 3])
def test_a_lowest_level_that_is_none_is_refused(level: int) -> None:
    with pytest.raises(SamplingError, match="choose 0 to 2"):
        SongSampler(FakeEngine(MODEL), FINGERPRINT, options=SamplingOptions(lowest_level=level))


def test_no_songs_and_no_slots_are_refused() -> None:
    with pytest.raises(SamplingError, match="no songs"):
        sample(FakeEngine(MODEL), [])
    with pytest.raises(SamplingError, match="at least 1"):
        SamplingOptions(slots=0)
