"""A DICOMweb server on loopback that can misbehave, small DICOM files for it, and a call of the command."""

import argparse
import hashlib
import http.server
import io
import json
import re
import threading
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from sagemaker_monai.dicomweb import transfer as dicomweb
from sagemaker_monai.sagemaker.dicomweb_access import outside
from tests.support import loopback

STUDY = "1.2.3"
BOUNDARY = "the-boundary"


def instance(series, number, *, study=STUDY, patient="P1", rows=8):
    """SOPInstanceUID and bytes of one slice."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"{series}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = study, series, patient
    dataset.PatientName, dataset.Modality, dataset.InstanceNumber = "Doe^Jane", "MR", number
    dataset.Rows = dataset.Columns = rows
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = np.full((rows, rows), number, np.uint16).tobytes()
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return str(dataset.SOPInstanceUID), file.getvalue()


def make_series(uid, count, **words):
    return dict(instance(uid, number, **words) for number in range(1, count + 1))


def multipart(contents, *, boundary=BOUNDARY, is_closed=True):
    parts = [b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (boundary.encode(), each) for each in contents]
    return b"".join(parts) + (b"--%b--\r\n" % boundary.encode() if is_closed else b"")


def record(**values):
    tags = {"study": "0020000D", "series": "0020000E", "instance": "00080018", "modality": "00080060",
            "patient": "00100020", "count": "00201209"}  # fmt: skip
    return {tags[name]: {"vr": "UN", "Value": [value]} for name, value in values.items()}


class Handler(loopback.Handler):
    """QIDO-RS and WADO-RS of `server.series`; `server.first` comes first and returns whether it has answered."""

    def get(self):
        parts = urlsplit(self.path)
        self.route, self.words = parts.path.removeprefix("/dicom-web"), dict(parse_qsl(parts.query))
        with self.server.lock:
            self.server.asked.append(self.route)
            self.server.headers.append(dict(self.headers))
        if self.server.first(self):
            return
        if re.fullmatch("(/studies/[^/]+)?/series", self.route):
            self.page([
                record(study=STUDY, series=uid, modality="MR", patient="P1", count=len(instances))
                for uid, instances in self.server.series.items()
            ])  # fmt: skip
        elif found := re.fullmatch("/studies/[^/]+/series/([^/]+)/instances", self.route):
            self.page([record(instance=uid) for uid in self.server.series[found[1]]])
        elif found := re.fullmatch("/studies/[^/]+/series/([^/]+)", self.route):
            self.parts(self.server.series[found[1]].values())
        elif found := re.fullmatch("/studies/[^/]+/series/([^/]+)/instances/([^/]+)", self.route):
            self.parts([self.server.series[found[1]][found[2]]])
        else:
            self.answer(404, b"")

    def page(self, records):
        offset, limit = int(self.words.get("offset", 0)), int(self.words.get("limit", 10**9))
        self.json(records[offset : offset + limit])

    def json(self, content):
        self.answer(200, json.dumps(content).encode(), Content_Type="application/dicom+json")

    def parts(self, contents, **words):
        self.whole(multipart(contents, **words))

    def whole(self, body, boundary=BOUNDARY):
        self.answer(200, body, Content_Type=f'multipart/related; type="application/dicom"; boundary="{boundary}"')

    def cut(self, body, content_type=f"multipart/related; boundary={BOUNDARY}"):
        """An answer without a length, ended by closing the connection, as Orthanc does."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@contextmanager
def serving(series=None, first=lambda handler: False, tls=None):
    """A server with `series` (SeriesInstanceUID -> SOPInstanceUID -> bytes); `tls` is a context for https."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        vars(server).update(series=series or {}, first=first, asked=[], headers=[], lock=threading.Lock())
        server.daemon_threads = True  # do not wait for a stalled one
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            server.handle_error = lambda *_: None
        server.root = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/dicom-web"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def once(match, answer):
    """Answer the first request whose route matches with another function."""
    done = []

    def first(handler):
        if done or not re.fullmatch(match, handler.route):
            return False
        done.append(handler.route)
        answer(handler)
        return True

    return first


def always(match, answer):
    def first(handler):
        if not re.fullmatch(match, handler.route):
            return False
        answer(handler)
        return True

    return first


def run(root, out, *options, environment=None):
    """Run the command; returns its summary."""
    parser = argparse.ArgumentParser()
    dicomweb.add_transfer_options(parser)
    parser.set_defaults(outside=outside(environment or {}))
    return dicomweb.run(parser.parse_args([root, str(out), *options]))


def digests(folder):
    """SHA-256 of every file by its SOPInstanceUID."""
    files = list(folder.rglob("*.dcm"))
    return {str(dcmread(file).SOPInstanceUID): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
