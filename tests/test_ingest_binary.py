"""Binary event files, whole and damaged. Their bytes are built here, as the real packages' writers make them."""

import json
import math
import struct

from jinmaek.ingest import find_logs
from jinmaek.ingest.tensorboard import masked_crc
from log_files import column, split, write


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def tensor(value, packed):
    return field(8, field(1, 1) + field(4 if packed else 5, struct.pack("<f", value)))


def event(step, tensors=None, **tags):
    values = [field(1, tag.replace("__", "/").encode()) + field(2, float(value)) for tag, value in tags.items()]
    values += [field(1, tag.encode()) + tensor(value, step % 2) for tag, value in (tensors or {}).items()]
    data = varint(1 << 3 | 1) + bytes(8) + field(2, step) + field(5, b"".join(field(1, value) for value in values))
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", masked_crc(size)) + data + struct.pack("<I", masked_crc(data))


def test_the_checksum_is_tensorboards():
    # CRC-32C of "123456789" is e3069283 everywhere; turned and shifted as TFRecord does.
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_event_files_of_several_runs(tmp_path):
    events = b"".join(
        event(step, train__loss=loss, train__learning_rate=0.5, train__epoch=0.25)
        for step, loss in ((5, 2.5), (10, math.nan))
    )
    events += event(10, eval__loss=1.5) + event(10, train__train_loss=1.0, train__train_runtime=3.0)
    write(tmp_path / "a" / "events.out.tfevents.1.host.1.0", events + event(15, train__loss=9.0)[:-7])
    write(tmp_path / "b" / "events.out.tfevents.1.host.2.0", b"".join(event(n, {"loss": n / 2}) for n in (1, 2, 3)))
    a, b = find_logs(str(tmp_path))
    records, evaluations, _ = split(a)
    assert (a.name, b.name, a.facts.filters_loss, b.facts.filters_loss) == ("a", "b", True, False)
    assert (column(records, "step"), column(records, "lr"), column(records, "num_steps")) == (
        [5, 10],
        [0.5] * 2,
        [5, 5],
    )
    assert math.isnan(records[1].loss_reported)
    assert (column(evaluations, "loss"), column(split(b)[0], "loss")) == ([1.5], [0.5, 1.0, 1.5])


def test_a_damaged_event_file_gives_what_stands_before_the_damage(tmp_path):
    path = write(tmp_path / "f", event(1, loss=2.5) + event(2, loss=2.0) + b"\x05" * 40)
    [source] = find_logs(path)
    assert (column(split(source)[0], "loss"), source.unread) == ([2.5, 2.0], 1)


def wandb_file(*records):
    """LevelDB's log: blocks of 32 KiB, records cut where a block ends."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for data in records:
        first, rest = True, data
        while True:
            left = 32768 - len(out) % 32768
            if left < 7:
                out += bytes(left)
                left = 32768
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not rest]
            out += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
            if not rest:
                break
    return bytes(out)


def history(**values):
    items = [
        field(2, key.replace("__", "/").encode()) + field(16, json.dumps(value).encode())
        for key, value in values.items()
    ]
    return field(1, 7) + field(2, b"".join(field(1, item) for item in items))


def test_an_offline_run_of_wandb(tmp_path):
    config = field(1, field(1, b"max_steps") + field(16, b"300")) + field(
        1, field(1, b"lr_scheduler_type") + field(16, b'"cosine"')
    )
    records = [field(17, field(4, config))]
    for step in range(10, 310, 10):
        loss = "NaN" if step == 50 else step / 100
        records.append(
            history(_step=step // 10, train__loss=loss, train__global_step=step, train__epoch=0.5, text="y" * 3900)
        )
    records.append(history(_step=31, eval__loss=1.5, train__global_step=300))
    content = wandb_file(*records)
    folder = tmp_path / "wandb" / "offline-run-1"
    write(folder / "run-1.wandb", content)
    write(folder / "files" / "output.log", "{'loss': 1.0, 'epoch': 1.0}\n")
    [source] = find_logs(str(tmp_path))
    runs, evaluations, _ = split(source)
    assert column(runs, "step") == list(range(10, 310, 10))
    assert math.isnan(runs[4].loss_reported)
    assert (column(evaluations, "step"), source.facts.max_steps, source.facts.schedule) == ([300], 300, "cosine")
    [torn] = find_logs(write(tmp_path / "torn.wandb", content[:50_000]))
    assert 5 < len(split(torn)[0]) < 20
