"""What ``/metrics`` says is what was done, over all workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgpack
from store_data_harness import FORM_TYPE, form, head, new_fid, running

from haystack.store.control_cells import Header

PHOTO = bytes(range(256)) * 16
P = "haystack_store_"


def test_counts_over_both_workers(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, volumes=(1, 2), upload_memory_bytes=65_536) as store:
        before = store.metrics()
        fids = [new_fid(1 + number % 2) for number in range(4)]
        a_form = form(PHOTO)
        items = msgpack.packb([{"fid": str(new_fid(2)), "data": PHOTO} for _ in range(3)])
        for worker in (0, 1):
            with store.client(worker) as client:
                fid, other = fids[worker], fids[worker + 2]
                assert client.put(f"/{fid}", PHOTO).status == 201
                assert client.request("POST", f"/{other}", a_form, [FORM_TYPE]).status == 201
                assert client.put(f"/{new_fid(1)}", bytes(200_000)).status == 201  # spills
                for _ in range(5):
                    assert client.get(f"/{fid}").status == 200
                assert client.get(f"/{fid}.jpg").status == 200
                assert client.request("HEAD", f"/{fid}").status == 200
                assert client.get(f"/{fid}", Range="bytes=0-9").status == 206
                assert client.get(f"/{fid}", If_None_Match="*").status == 304
                assert client.get(f"/{replace(fid, cookie=1)}").status == 404
                assert client.delete(f"/{other}").status == 202
                assert client.delete(f"/{other}").status == 404
                assert client.request("OPTIONS", "/").status == 405
        assert store.once("POST", "/2/multi", items, worker=1).status == 201
        with store.client() as client:
            client.send(head("PUT", f"/{new_fid()}", PHOTO, [("Expect", "100-continue")]))
            assert client.answer().status == 100
            client.send(PHOTO[:100])
        while (after := store.metrics(1))[P + "aborted_uploads_total"] == 0:
            pass
        grown = {name: after[name] - before.get(name, 0) for name in after}
        expected = {
            'requests_total{method="HEAD"}': 2,
            'requests_total{method="PUT"}': 2 * 3 + 1 + 1,
            'requests_total{method="DELETE"}': 4,
            'requests_total{method="other"}': 2,
            'responses_total{status="201"}': 2 * 3 + 1,
            'responses_total{status="202"}': 2,
            'responses_total{status="206"}': 2,
            'responses_total{status="304"}': 2,
            'responses_total{status="404"}': 4,
            'responses_total{status="405"}': 2,
            'responses_total{status="500"}': 0,
            "spilled_uploads_total": 2,
            "aborted_uploads_total": 1,
            "received_bytes_total": 2 * (len(PHOTO) + len(a_form) + 200_000) + len(items) + 100,
            "sent_bytes_total": 2 * (6 * len(PHOTO) + 10),
            'volume_reads_total{volume="1"}': 9,
            'volume_reads_total{volume="2"}': 9,
            'volume_read_bytes_total{volume="1"}': 6 * len(PHOTO) + 10,
            'volume_writes_total{volume="1"}': 2 + 2,
            'volume_writes_total{volume="2"}': 2 + 3,
            'volume_written_bytes_total{volume="1"}': 2 * len(PHOTO) + 2 * 200_000,
            'volume_written_bytes_total{volume="2"}': 5 * len(PHOTO),
            'volume_deletes_total{volume="1"}': 1,
            'volume_deletes_total{volume="2"}': 1,
            'volume_errors_total{volume="1"}': 0,
            'request_duration_seconds_count{operation="read"}': 18,
            'request_duration_seconds_count{operation="write"}': 2 * 3 + 1,
            'request_duration_seconds_count{operation="delete"}': 2,
            "damaged_reads_total": 0,
            "disk_errors_total": 0,
            "upload_memory_bytes": 0,
        }
        assert {name: grown[P + name] for name in expected} == expected
        pages = grown[P + 'requests_total{method="GET"}'] - 2 * 9
        assert grown[P + 'responses_total{status="200"}'] == 2 * 7 + pages
        assert after[P + "cached_entries"] == 2
        assert after[P + "workers"] == 2
        sums = [after[f'{P}request_duration_seconds_sum{{operation="{name}"}}'] for name in ("read", "write", "delete")]
        assert all(0 < seconds < 30 for seconds in sums)


def test_readiness_follows_the_supervisor(tmp_path: Path) -> None:
    with running(tmp_path) as store:
        for ready, stopping, status in ((1, 0, 200), (0, 0, 503), (1, 1, 503), (0, 1, 503)):
            store.control.cells[Header.READY], store.control.cells[Header.STOPPING] = ready, stopping
            answer = store.once("GET", "/readyz")
            assert answer.status == status
            assert store.once("GET", "/healthz").status == 200
