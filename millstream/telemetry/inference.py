"""How the events of inference become numbers. The metrics themselves stand in the one table."""

from __future__ import annotations

from typing import assert_never

from millstream.events import (
    BatchRan,
    DeviceFailed,
    DeviceRanOut,
    DeviceSampled,
    InferenceEnded,
    InferenceSampled,
    ModelEvicted,
    ModelLoaded,
    SlotsAdvanced,
)
from millstream.telemetry.series import Series


def model_event(
    series: Series, event: InferenceEnded | InferenceSampled | BatchRan | SlotsAdvanced
) -> None:
    """Count what happened to a model."""
    model = event.model
    match event:
        case InferenceEnded():
            series.count("millstream_infer_requests_total", model, event.outcome)
            took_s, trace = event.took_s, event.trace
            series.observe("millstream_infer_request_seconds", took_s, model, trace=trace)
            series.observe("millstream_infer_queue_wait_seconds", event.waited_s, model)
        case InferenceSampled():
            series.set("millstream_infer_queue_depth", event.waiting, model)
            series.set("millstream_infer_queue_oldest_age_seconds", event.oldest_s, model)
        case BatchRan():
            _batch(series, event)
        case SlotsAdvanced():
            _advance(series, event)
        case _ as never:
            assert_never(never)


def device_event(
    series: Series, event: DeviceSampled | DeviceRanOut | DeviceFailed | ModelLoaded | ModelEvicted
) -> None:
    """Count what happened to a device."""
    device = event.device
    match event:
        case DeviceSampled():
            series.set("millstream_infer_mem_headroom_bytes", event.headroom, device)
            series.set("millstream_infer_mem_others_bytes", event.others, device)
            series.set("millstream_infer_mem_held_bytes", event.held, device)
        case DeviceRanOut():
            series.count("millstream_infer_oom_total", event.model, device)
            series.count("millstream_infer_oom_splits_total", event.model, device, by=event.split)
        case DeviceFailed():
            series.count("millstream_infer_device_resets_total", device)
        case ModelLoaded():
            series.count("millstream_infer_model_loads_total", event.model, device)
            series.observe("millstream_infer_model_load_seconds", event.took_s, event.model)
        case ModelEvicted():
            series.count("millstream_infer_model_evictions_total", event.model, device)
        case _ as never:
            assert_never(never)


def _batch(series: Series, event: BatchRan) -> None:
    model, device = event.model, event.device
    series.count("millstream_infer_dispatch_reason_total", model, event.reason)
    if event.fault is not None:
        series.count("millstream_infer_batch_failures_total", model, event.fault)
        return
    series.observe("millstream_infer_batch_items", event.items, model)
    series.observe("millstream_infer_batch_tokens", event.tokens, model)
    series.observe("millstream_infer_padding_ratio", event.computed / event.tokens, model)
    series.observe("millstream_infer_batch_seconds", event.took_s, model, device)
    _bytes(series, event)


def _advance(series: Series, event: SlotsAdvanced) -> None:
    model, device = event.model, event.device
    if event.fault is not None:
        series.count("millstream_infer_batch_failures_total", model, event.fault)
        series.set("millstream_infer_slots", 0, model, device)
        return
    series.set("millstream_infer_slots", event.slots - event.ended, model, device)
    series.count("millstream_infer_tokens_written_total", model, by=event.wrote)
    series.count("millstream_infer_tokens_read_total", model, by=event.read)
    series.observe("millstream_infer_token_seconds", event.took_s, model, device)
    _bytes(series, event)


def _bytes(series: Series, event: BatchRan | SlotsAdvanced) -> None:
    model, device = event.model, event.device
    if event.observed is not None:
        series.set("millstream_infer_mem_predicted_bytes", event.predicted, model, device)
        series.set("millstream_infer_mem_observed_peak_bytes", event.observed, model, device)
        ratio = event.observed / max(1, event.predicted)
        series.observe("millstream_infer_mem_error_ratio", ratio, model)
