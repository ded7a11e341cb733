from __future__ import annotations

import json
import pickle

import pytest


def test_an_onnx_file_of_one_sub_network(cli, run_folder, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    result = cli("export", run_folder, tmp_path / "net.onnx", "--subnet", "TTF", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["subnet"] == "TTF"
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 16, 16]


def test_a_line_for_people(cli, run_folder, tmp_path) -> None:
    result = cli("export", run_folder, tmp_path / "net.pt2")
    assert result.status == 0, result.err
    assert "net.pt2" in result.out
    assert (tmp_path / "net.pt2").exists()


def test_one_file_of_all_sub_networks_with_their_table(cli, measured, tmp_path) -> None:
    from pliant.checkpoint import load
    from pliant.core.fingerprint import fingerprint
    from pliant.export import read_metadata
    from pliant.measure.table import Table

    table = Table.load(measured / "table.json")
    info = {"fingerprint": fingerprint(load(measured)), "device": "cpu", "threads": 2}
    Table(table.rows, info).save(measured / "table.json")
    result = cli("export", measured, tmp_path / "net.onnx", "--switchable", "--mode", "compact", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["role"] == "switchable"
    found = read_metadata(tmp_path / "net.onnx")
    rows = {row["subnet"]: row for row in found["subnets"]}
    assert len(rows) == 8 and rows["FTT"]["latency_ms"] == 3.0 and "latency_ms" not in rows["TFF"]
    assert found["measured"] == {"device": "cpu", "threads": 2} and found["mode"] == "compact"


def test_norm_statistics_of_one_sub_network_are_not_for_all(refused, run_folder, tmp_path) -> None:
    assert "--switchable" in refused("export", run_folder, tmp_path / "net.onnx", "--switchable", "--recalibrate", 4)
    assert "subnet" in refused("export", run_folder, tmp_path / "net.onnx", "--switchable", "--subnet", "TTT")


def test_a_mode_is_that_of_a_switchable_file(refused, run_folder, tmp_path) -> None:
    assert "add --switchable" in refused("export", run_folder, tmp_path / "net.onnx", "--mode", "compact")


@pytest.mark.parametrize("subnet", ["TTX", "TT", "TTTT", ""])
def test_a_malformed_sub_network_is_refused_by_name(refused, run_folder, tmp_path, subnet: str) -> None:
    line = refused("export", run_folder, tmp_path / "net.onnx", "--subnet", subnet)
    assert repr(subnet) in line
    assert "3 letters" in line
    assert not (tmp_path / "net.onnx").exists()


def test_an_unknown_ending(refused, run_folder, tmp_path) -> None:
    assert ".onnx" in refused("export", run_folder, tmp_path / "net.tflite")


def test_no_run(refused, tmp_path) -> None:
    assert "never" in refused("export", tmp_path / "never", tmp_path / "net.onnx")


def truncate(folder) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def corrupt(folder) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)


def put_a_pickle(folder) -> None:
    class Bomb:
        def __reduce__(self):
            return (folder.joinpath("executed").touch, ())

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))


def make_newer(folder) -> None:
    card = json.loads((folder / "pliant.json").read_text())
    (folder / "pliant.json").write_text(json.dumps(card | {"format": 99}))


def lose_the_card(folder) -> None:
    (folder / "pliant.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "truncated"),
        (corrupt, "corrupt"),
        (put_a_pickle, "model.safetensors"),
        (make_newer, "newer"),
        (lose_the_card, "pliant.json"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_never_executed(refused, run_folder, tmp_path, damage, said: str) -> None:
    damage(run_folder)
    assert said in refused("export", run_folder, tmp_path / "net.onnx")
    assert not (run_folder / "executed").exists()
