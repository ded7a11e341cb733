import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pliant
from pliant.measure import energy, latency
from pliant.measure.energy import EnergyError, NvmlMeter, RaplMeter, interleaved_mj, usual_meter
from pliant.measure.run import measure


def zone(powercap: Path, number: str, name: str, microjoules: int, largest: int = 1000) -> Path:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", largest)):
        (folder / file).write_text(f"{value}\n")
    return folder / "energy_uj"


class Clock:
    """In place of time: every look at it takes `step` seconds, and a machine uses 10 W all the while."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def perf_counter(self) -> float:
        self.now += self.step
        return self.now

    def joules(self) -> float:
        return 5e6 + 10 * self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_packages_and_their_memory_are_added_and_counters_go_round(tmp_path):
    first = zone(tmp_path, "0", "package-0", 900)
    second = zone(tmp_path, "1", "package-1", 100, largest=2000)
    memory = zone(tmp_path, "1:0", "dram", 10)
    core, whole = zone(tmp_path, "0:0", "core", 0), zone(tmp_path, "2", "psys", 0)
    meter = RaplMeter(tmp_path)
    assert meter() == 0
    for counter, value in ((first, 950), (second, 300), (memory, 15), (core, 77), (whole, 777)):
        counter.write_text(str(value))
    assert meter() == pytest.approx(255e-6)
    first.write_text("20")  # 50 up to 1000, and 20 more
    assert meter() == pytest.approx((255 + 70) * 1e-6)
    assert meter() == pytest.approx((255 + 70) * 1e-6)


def test_why_a_processor_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(EnergyError, match=f"there is no RAPL counter of a processor in {tmp_path}"):
        RaplMeter(tmp_path)
    zone(tmp_path, "0", "psys", 3)
    with pytest.raises(EnergyError, match="there is no RAPL counter"):
        RaplMeter(tmp_path)
    counter = zone(tmp_path, "1", "package-0", 3)
    read_text = Path.read_text

    def guarded(path, **options):
        if path == counter:
            raise PermissionError(13, "Permission denied")
        return read_text(path, **options)

    monkeypatch.setattr(Path, "read_text", guarded)  # root may read whatever the mode says
    with pytest.raises(EnergyError, match="intel-rapl:1/energy_uj may not be read by this user"):
        RaplMeter(tmp_path)
    monkeypatch.undo()
    counter.unlink()
    with pytest.raises(EnergyError, match=r"RAPL cannot be read: .*energy_uj \(No such file"):
        RaplMeter(tmp_path)


def test_a_gpu_is_read_through_its_library(monkeypatch):
    class NVMLError(Exception):
        pass

    def handle(uuid):
        if uuid != "GPU-one":
            raise NVMLError("Not Found")
        return uuid

    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetTotalEnergyConsumption=lambda _: 7250,
        NVMLError=NVMLError,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert NvmlMeter("one")() == 7.25
    with pytest.raises(EnergyError, match=r"the energy counter of this GPU cannot be read \(Not Found\)"):
        NvmlMeter("other")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(EnergyError, match="pynvml, which reads the counter of a GPU, is not installed"):
        NvmlMeter("one")


def test_a_device_without_a_counter(monkeypatch):
    with pytest.raises(EnergyError, match="no energy counter is known of the device mps"):
        usual_meter(torch.device("mps"))


def test_energy_of_a_call_is_power_times_its_time(monkeypatch):
    clock, seen = Clock(), []
    monkeypatch.setattr(latency, "time", clock)
    calls = {"short": lambda: clock.sleep(0.002), "long": lambda: clock.sleep(0.008)}
    used = interleaved_mj(calls, clock.joules, seconds=0.2, blocks=3, on_block=seen.append)
    assert used == {"short": pytest.approx(20), "long": pytest.approx(80)}
    assert seen == [1, 2, 3]
    assert clock.now == pytest.approx(0.4, rel=0.2)


def falling(numbers=iter(range(0, -99, -3))) -> float:  # noqa: B008
    return next(numbers)


@pytest.mark.parametrize(
    ("meter", "message"),
    [
        (lambda: "12 J", "the meter returned '12 J'; expected joules"),
        (lambda: float("nan"), "the meter returned nan; expected joules"),
        (lambda: 4.0, "the meter stood still while one ran for 0.1 s"),
        (falling, "the meter fell by 3 J"),
    ],
)
def test_a_meter_that_measures_nothing_gives_no_numbers(meter, message):
    with pytest.raises(EnergyError, match=message):
        interleaved_mj({"one": lambda: time.sleep(0.001)}, meter, seconds=0.1)


def test_energy_is_that_of_one_image(adapted, monkeypatch):
    clock = Clock(step=0.05)
    monkeypatch.setattr(latency, "time", clock)
    options = {"image_size": 16, "subnets": ["TTT"], "latency": False, "memory": False}
    table = measure(adapted, batch_size=4, meter=clock.joules, **options)
    # Two looks at the clock a pass, so 0.1 s and 1 J.
    assert table.rows[0]["energy_mj"] == pytest.approx(250)
    assert table.info["energy_of"] == "joules" and "no_energy" not in table.info


def test_energy_of_an_exported_file_too(adapted, monkeypatch, tmp_path):
    path = pliant.export(adapted, tmp_path / "net.onnx", subnet="TTT", image_size=16).path
    clock = Clock(step=0.05)
    monkeypatch.setattr(latency, "time", clock)
    table = pliant.measure_file(path, batch_size=4, meter=clock.joules, rounds=1, warmup=0)
    assert table.rows[0]["energy_mj"] == pytest.approx(250) and table.info["energy_of"] == "joules"
    with pytest.raises(ValueError, match="the meter returned None"):
        pliant.measure_file(path, meter=lambda: None)
    assert not {"energy_of", "no_energy"} & set(pliant.measure_file(path, energy=False, rounds=1).info)


def test_counters_of_the_machine_are_used_where_they_can_be_read(adapted, tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    counter = zone(tmp_path, "0", "package-0", 0, largest=10**9)
    read_text = Path.read_text

    def running(path, **options):
        return str(int(2e7 * time.perf_counter()) % 10**9) if path == counter else read_text(path, **options)

    monkeypatch.setattr(Path, "read_text", running)
    table = measure(adapted, image_size=32, subnets=["FFF"], latency=False, memory=False)
    assert table.rows[0]["energy_mj"] > 0 and table.info["energy_of"] == "RaplMeter"


def test_where_nothing_can_be_read_there_is_no_column_but_a_reason(adapted, tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    options = {"image_size": 32, "subnets": ["FFF"], "latency": False, "memory": False}
    table = measure(adapted, **options)
    assert "energy_mj" not in table.columns and "energy_of" not in table.info
    assert table.info["no_energy"] == f"there is no RAPL counter of a processor in {tmp_path}"
    assert "no_energy" not in measure(adapted, energy=False, **options).info
    with pytest.raises(ValueError, match="the meter returned None"):
        measure(adapted, meter=lambda: None, **options)
