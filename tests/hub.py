"""A Hub on 127.0.0.1 that keeps the repositories of a test in memory, and fails as it is told to."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

import huggingface_hub.constants

from diffmavil_jax.storage import hub

TOKEN = 'hf_of_the_test'


class FakeHub(http.server.ThreadingHTTPServer):
    """Repositories of models by name, each a dictionary of files.

    Attributes:
        files: of each repository.
        private: repositories that only TOKEN may see.
        cut: whether downloads break off half-way.
        commits: the messages of what was pushed.
        asked: the paths of all requests.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.files, self.private, self.cut, self.commits, self.asked = {}, set(), False, [], []
        self.url = f'http://127.0.0.1:{self.server_port}'

    def sha(self, name):
        """The commit that a repository is at, which its content decides."""
        return hashlib.sha1(repr(sorted(self.files[name].items())).encode()).hexdigest()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def answer(self, status, body=b'', **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({'Content-Length': len(content)} | headers).items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def repository(self, name):
        """Whether the asker may see it; says so if not, as the Hub does."""
        token = self.headers.get('Authorization') == f'Bearer {TOKEN}'
        if name in self.server.files and (token or name not in self.server.private):
            return True
        self.answer(404 if token else 401, {'error': 'Repository not found'}, X_Error_Code='RepoNotFound')
        return False

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.asked.append(path)
        parts = path.strip('/').split('/')
        if parts[:2] == ['api', 'models']:
            name = '/'.join(parts[2:4])
            if self.repository(name):
                self.describe(name, parts[4:])
        else:  # ORG/NAME/resolve/REVISION/FILE
            name = '/'.join(parts[:2])
            if self.repository(name):
                self.give(name, self.server.files[name]['/'.join(parts[4:])])

    do_HEAD = do_GET

    def describe(self, name, rest):
        files, sha = self.server.files[name], self.server.sha(name)
        if rest[:1] == ['revision'] and rest[1] not in ('main', sha):
            self.answer(404, {'error': 'no revision'}, X_Error_Code='RevisionNotFound')
        elif rest[:1] == ['tree']:
            entry = {'type': 'file', 'oid': sha}
            self.answer(200, [{**entry, 'path': path, 'size': len(data)} for path, data in files.items()])
        else:
            siblings = [{'rfilename': path} for path in files]
            self.answer(200, {'id': name, 'sha': sha, 'siblings': siblings})

    def give(self, name, data):
        headers = {
            'ETag': f'"{hashlib.sha1(data).hexdigest()}"',
            'X_Repo_Commit': self.server.sha(name),
        }
        if self.server.cut and self.command == 'GET':
            self.answer(200, data[: len(data) // 2], Content_Length=len(data), **headers)
            self.close_connection = True
        else:
            self.answer(200, data, **headers)

    def do_POST(self):
        self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.headers.get('Transfer-Encoding') == 'chunked':
            body = self.chunks()
        if self.path == '/api/validate-yaml':
            return self.answer(200, {'errors': [], 'warnings': []})
        name = '/'.join(self.path.split('/')[3:5])
        if not self.repository(name):
            return None
        if '/preupload/' in self.path:
            files = [
                {'path': file['path'], 'uploadMode': 'regular', 'shouldIgnore': False}
                for file in json.loads(body)['files']
            ]
            return self.answer(200, {'files': files})
        return self.commit(name, [json.loads(line) for line in body.splitlines()])

    def commit(self, name, lines):
        for line in lines:
            if line['key'] == 'header':
                self.server.commits.append(line['value']['summary'])
            else:
                self.server.files[name][line['value']['path']] = base64.b64decode(line['value']['content'])
        sha = self.server.sha(name)
        url = f'{self.server.url}/{name}/commit/{sha}'
        return self.answer(200, {'commitUrl': url, 'commitOid': sha})

    def chunks(self):
        body = b''
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@contextlib.contextmanager
def serve(monkeypatch, folder):
    """Has `hf://` lead to a Hub of the test, whose cache is in a folder; there is no token."""
    server = FakeHub()
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
    constants = huggingface_hub.constants
    # It has read HF_ENDPOINT when it was imported.
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    files = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition('/{repo_id}')
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', server.url + ''.join(files[1:]))
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # between its attempts
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(folder / 'hub'))
    monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(folder / 'token'))
    for name in ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'):
        monkeypatch.delenv(name, raising=False)
    hub.fetched.cache_clear()
    yield server
    hub.fetched.cache_clear()
    server.shutdown()
    server.server_close()
