#!/usr/bin/env python3
"""Replays the recorded cases of this corpus against a TensorFlow Serving API server.

  replay.py --server "tensorflow_model_server {flags}"
  replay.py --server "env TFS_SCANN={scann} tensorflow_model_server {flags}" --suite scenarios --only 'reload*'
  replay.py --grpc 127.0.0.1:8500 --rest 127.0.0.1:8501 --setup main   # a running server (see setups.json)

Needs: Python standard library, requests, grpcio, tensorflow-serving-api.
See README.md for the format and for how each field is compared.
"""
import argparse
import base64
import collections
import concurrent.futures
import fnmatch
import glob
import gzip
import http.client
import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')
os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = ('rest', 'grpc', 'scenarios')
REL_TOL = 1e-6


def _health():
    f = descriptor_pb2.FileDescriptorProto(name='conformance_health.proto', package='conformance_health', syntax='proto3')
    m = f.message_type.add(name='HealthCheckRequest')
    m.field.add(name='service', number=1, type=9, label=1)
    m = f.message_type.add(name='HealthCheckResponse')
    e = m.enum_type.add(name='ServingStatus')
    for i, n in enumerate(('UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN')):
        e.value.add(name=n, number=i)
    m.field.add(name='status', number=1, type=14, label=1, type_name='.conformance_health.HealthCheckResponse.ServingStatus')
    pool = descriptor_pool.Default()
    pool.Add(f)
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName('conformance_health.' + n))
            for n in ('HealthCheckRequest', 'HealthCheckResponse')]


P, M = '/tensorflow.serving.PredictionService/', '/tensorflow.serving.ModelService/'
METHODS = {
    P + 'Predict': (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    P + 'Classify': (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
    P + 'Regress': (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    P + 'MultiInference': (inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
    P + 'GetModelMetadata': (get_model_metadata_pb2.GetModelMetadataRequest, get_model_metadata_pb2.GetModelMetadataResponse),
    M + 'GetModelStatus': (get_model_status_pb2.GetModelStatusRequest, get_model_status_pb2.GetModelStatusResponse),
    M + 'HandleReloadConfigRequest': (model_management_pb2.ReloadConfigRequest, model_management_pb2.ReloadConfigResponse),
    '/grpc.health.v1.Health/Check': tuple(_health()),
}
STATES = {0: 'UNKNOWN', 10: 'START', 20: 'LOADING', 30: 'AVAILABLE', 40: 'UNLOADING', 50: 'END'}


def load_json(p):
    with open(p, encoding='utf-8') as f:
        return json.load(f)


# ---------------------------------------------------------------- masking and comparing
class Masks:
    def __init__(self, path):
        self.rules = [(re.compile(r['pattern'], re.M), r['replace']) for r in load_json(path)['masks']]

    def __call__(self, text):
        for rx, rep in self.rules:
            text = rx.sub(rep, text)
        return text


def numbers_equal(a, b):
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a == b or (not math.isinf(a) and not math.isinf(b) and abs(a - b) <= REL_TOL * max(abs(a), abs(b)))


def is_num(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def json_diff(a, b, mask, path='$'):
    """First difference of two parsed JSON values, or None. Error texts (any string) are compared after masking."""
    if is_num(a) and is_num(b):
        return None if numbers_equal(a, b) else f'{path}: expected {a!r}, got {b!r}'
    if type(a) is not type(b):
        return f'{path}: expected {short(a)}, got {short(b)}'
    if isinstance(a, dict):
        if set(a) != set(b):
            return f'{path}: expected keys {sorted(a)}, got {sorted(b)}'
        for k in a:
            d = json_diff(a[k], b[k], mask, f'{path}.{k}')
            if d: return d
        return None
    if isinstance(a, list):
        if len(a) != len(b):
            return f'{path}: expected {len(a)} items, got {len(b)}'
        for i, (x, y) in enumerate(zip(a, b)):
            d = json_diff(x, y, mask, f'{path}[{i}]')
            if d: return d
        return None
    if isinstance(a, str):
        return None if mask(a) == mask(b) else f'{path}: expected {short(mask(a))}, got {short(mask(b))}'
    return None if a == b else f'{path}: expected {short(a)}, got {short(b)}'


def short(v, n=300):
    s = v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, default=repr)
    return repr(s if len(s) <= n else s[:n] + f'...({len(s)})')


def msg_diff(a, b, path=''):
    """First difference of two messages of one type, or None (floats to 1e-6 relative, Any unpacked)."""
    if a.DESCRIPTOR.full_name == 'google.protobuf.Any':
        if a.type_url != b.type_url:
            return f'{path}: expected {a.type_url}, got {b.type_url}'
        x, y = get_model_metadata_pb2.SignatureDefMap(), get_model_metadata_pb2.SignatureDefMap()
        if a.Is(x.DESCRIPTOR):
            a.Unpack(x); b.Unpack(y)
            return msg_diff(x, y, path + '[signature_def]')
        return None if a.value == b.value else f'{path}: Any values differ'
    fa, fb = dict((f.name, (f, v)) for f, v in a.ListFields()), dict((f.name, (f, v)) for f, v in b.ListFields())
    for n in sorted(set(fa) | set(fb)):
        p = f'{path}.{n}' if path else n
        if n not in fb: return f'{p}: expected {short(str(fa[n][1]))}, got nothing'
        if n not in fa: return f'{p}: expected nothing, got {short(str(fb[n][1]))}'
        f, x = fa[n]; y = fb[n][1]
        rep = f.is_repeated if hasattr(f, 'is_repeated') else f.label == 3
        if callable(rep): rep = rep()
        if rep and f.message_type is not None and f.message_type.GetOptions().map_entry:
            if set(x) != set(y): return f'{p}: expected keys {sorted(x)}, got {sorted(y)}'
            items = [(f'{p}[{k}]', x[k], y[k]) for k in x]
            vf = f.message_type.fields_by_name['value']
        elif rep:
            if len(x) != len(y): return f'{p}: expected {len(x)} items, got {len(y)}'
            items = [(f'{p}[{i}]', u, v) for i, (u, v) in enumerate(zip(x, y))]; vf = f
        else:
            items = [(p, x, y)]; vf = f
        for q, u, v in items:
            if vf.message_type is not None:
                d = msg_diff(u, v, q)
            elif is_num(u):
                d = None if numbers_equal(u, v) else f'{q}: expected {u!r}, got {v!r}'
            else:
                d = None if u == v else f'{q}: expected {short(repr(u))}, got {short(repr(v))}'
            if d: return d
    return None


# ---------------------------------------------------------------- bodies
def body_bytes(r, text=lambda s: s):
    if 'body_b64' in r: return base64.b64decode(r['body_b64'])
    if 'body_gen' in r:
        g = r['body_gen']
        b = (g.get('prefix', '') + g['repeat'] * g['count'] + g.get('suffix', '')).encode('utf-8')
    elif 'body' in r: b = text(r['body']).encode('utf-8')
    else: return None
    return gzip.compress(b, mtime=0) if r.get('body_gzip') else b


def put_body(out, data):
    try:
        out['body'] = data.decode('utf-8')
    except UnicodeDecodeError:
        out['body_b64'] = base64.b64encode(data).decode()


def parse_json(data):
    try:
        return True, json.loads(data)
    except ValueError:
        return False, None


KEPT_HEADERS = ('content-type', 'content-encoding', 'allow', 'access-control-allow-origin', 'access-control-allow-methods',
                'access-control-allow-headers')


def do_http(addr, r, text=lambda s: s, timeout=60):
    """One request on one connection; exactly the headers given plus Host, Connection: close and Content-Length."""
    body = body_bytes(r, text)
    lines = [f"{r['method']} {text(r['path'])} HTTP/1.1", 'Host: localhost', 'Connection: close']
    hdr = r.get('headers', {})
    lines += [f'{k}: {v}' for k, v in hdr.items()]
    if body is not None and not any(k.lower() in ('content-length', 'transfer-encoding') for k in hdr):
        lines.append(f'Content-Length: {len(body)}')
    host, port = addr.rsplit(':', 1)
    try:
        s = socket.create_connection((host, int(port)), timeout)
    except OSError as e:
        return {'error': type(e).__name__}
    try:
        s.sendall('\r\n'.join(lines).encode('utf-8') + b'\r\n\r\n' + (body or b''))
        resp = http.client.HTTPResponse(s, method=r['method'])
        try:
            resp.begin()
            data = resp.read()
        except (http.client.HTTPException, ConnectionError, socket.timeout, ValueError) as e:
            return {'error': type(e).__name__}
        out = {'status': resp.status,
               'headers': {k: resp.headers[k] for k in KEPT_HEADERS if resp.headers[k] is not None}}
        put_body(out, data)
        return out
    except ConnectionError as e:
        return {'error': type(e).__name__}
    finally:
        s.close()


def metrics_of(text):
    return sorted({' '.join(l.split()[2:4]) for l in text.splitlines() if l.startswith('# TYPE ')})


def diff_http(want, got, mask, strict=False, compare=None):
    """List of (kind, text)."""
    if 'error' in want or 'error' in got:
        return [] if want.get('error') == got.get('error') else [('status', f"expected {want.get('error') or want['status']}, got {got.get('error') or got['status']}")]
    out = []
    if want['status'] != got['status']:
        out.append(('status', f"expected {want['status']}, got {got['status']}"))
    if want['headers'] != got['headers']:
        out.append(('headers', f"expected {want['headers']}, got {got['headers']}"))
    if compare == 'metrics':
        w = {m for m in want['metrics'] if m.startswith(':tensorflow:serving:')}
        miss = w - set(got['metrics'])
        if miss: out.append(('body', f'metrics missing: {sorted(miss)}'))
        return out
    wb = want['body'].encode() if 'body' in want else base64.b64decode(want['body_b64'])
    gb = got['body'].encode() if 'body' in got else base64.b64decode(got['body_b64'])
    if strict:
        if wb != gb: out.append(('body', f'expected {short(wb.decode("utf-8", "replace"))}, got {short(gb.decode("utf-8", "replace"))}'))
        return out
    wj, wv = parse_json(wb); gj, gv = parse_json(gb)
    if wj and gj:
        d = json_diff(wv, gv, mask)
        if d:
            kind = 'text' if isinstance(wv, dict) and isinstance(gv, dict) and set(wv) == set(gv) == {'error'} else 'body'
            if compare != 'any_error_text' or kind != 'text': out.append((kind, d))
    elif mask(wb.decode('utf-8', 'surrogateescape')) != mask(gb.decode('utf-8', 'surrogateescape')):
        out.append(('body', f'expected {short(wb.decode("utf-8", "replace"))}, got {short(gb.decode("utf-8", "replace"))}'))
    return out


# ---------------------------------------------------------------- gRPC
CH_OPTS = [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1), ('grpc.enable_retries', 0),
           ('grpc.use_local_subchannel_pool', 1)]


def grpc_request_bytes(r, text=lambda s: s):
    if 'text' in r and '${' in r['text'] or 'b64' not in r and 'text' in r:
        m = METHODS[r['method']][0]()
        text_format.Parse(text(r['text']), m)
        return m.SerializeToString(deterministic=True)
    if 'gen' in r:
        g = r['gen']
        m = METHODS[r['method']][0]()
        text_format.Parse(g['prefix'] + g['repeat'] * g['count'] + g['suffix'], m)
        return m.SerializeToString(deterministic=True)
    return base64.b64decode(r['b64'])


def do_grpc(channel, r, text=lambda s: s, untext=lambda s: s):
    data = grpc_request_bytes(r, text)
    try:
        resp = channel.unary_unary(r['method'])(data, timeout=r.get('timeout_s', 60),
                                                metadata=[tuple(x) for x in r.get('metadata', [])])
    except grpc.RpcError as e:
        return {'code': e.code().name, 'details': untext(e.details() or '')}
    out = {'code': 'OK', 'details': '', 'b64': base64.b64encode(resp).decode()}
    if r['method'] in METHODS:
        m = METHODS[r['method']][1].FromString(resp)
        out['text'] = text_format.MessageToString(m, as_utf8=True)
        if len(resp) > 100000:
            out['text'] = out['text'][:200] + '...'
    return out


def diff_grpc(method, want, got, mask, strict=False):
    out = []
    if want['code'] != got['code']:
        return [('status', f"expected {want['code']} {short(want['details'])}, got {got['code']} {short(got['details'])}")]
    if mask(want['details']) != mask(got['details']):
        out.append(('text', f"expected {short(mask(want['details']))}, got {short(mask(got['details']))}"))
    if want['code'] == 'OK':
        a, b = base64.b64decode(want['b64']), base64.b64decode(got['b64'])
        if method in METHODS:
            c = METHODS[method][1]
            d = msg_diff(c.FromString(a), c.FromString(b))
        else:
            d = None if a == b else 'response bytes differ'
        if d: out.append(('body', d))
    return out


# ---------------------------------------------------------------- server under test
class Ports:
    def __init__(self, spec):
        self.lock = threading.Lock()
        self.lo, self.hi = map(int, spec.split('-')); self.n = self.lo + os.getpid() * 7 % max(1, (self.hi - self.lo) // 2)

    def take(self):
        with self.lock: return self._take()

    def _take(self):
        while True:
            self.n = self.n + 1 if self.n < self.hi else self.lo
            with socket.socket() as s:
                try:
                    s.bind(('127.0.0.1', self.n)); return self.n
                except OSError:
                    pass


def can_connect(port):
    try:
        socket.create_connection(('127.0.0.1', port), 0.5).close(); return True
    except OSError:
        return False


class World:
    """A working directory, at most one server process, and clients for it."""

    def __init__(self, opt):
        self.opt = opt
        os.makedirs(opt.work, exist_ok=True)
        self.root = tempfile.mkdtemp(dir=opt.work, prefix='w')
        self.proc = self.channel = None
        self.threads, self.loads = {}, {}
        self.text = lambda s: (s.replace('${ROOT}', self.root).replace('${GRPC_PORT}', str(getattr(self, 'gport', 0)))
                               .replace('${REST_PORT}', str(getattr(self, 'rport', 0))))

    def untext(self, s):
        s = s.replace(self.root, '${ROOT}')
        for n, k in (('gport', '${GRPC_PORT}'), ('rport', '${REST_PORT}')):
            if hasattr(self, n):
                s = re.sub(rf'\b{getattr(self, n)}\b', k.replace('\\', r'\\'), s)
        return s

    def path(self, p):
        q = os.path.normpath(os.path.join(self.root, p))
        assert q.startswith(self.root + '/')
        os.makedirs(os.path.dirname(q), exist_ok=True)
        return q

    def start(self, flags, wait_s=60, scann=False, env=None, ports=True):
        self.gport, self.rport = self.opt.ports.take(), self.opt.ports.take()
        fl = [self.text(f) for f in flags]
        if ports:
            if not any(f.startswith('--port=') for f in fl): fl.append(f'--port={self.gport}')
            if not any(f.startswith('--rest_api_port=') for f in fl): fl.append(f'--rest_api_port={self.rport}')
        fl = [f.replace('${GRPC_PORT}', str(self.gport)).replace('${REST_PORT}', str(self.rport)) for f in fl]
        cmd = []
        for a in shlex.split(self.opt.server):
            if a == '{flags}': cmd += fl
            else: cmd.append(a.replace('{scann}', '1' if scann else '0').replace('{flags}', ' '.join(map(shlex.quote, fl))))
        self.log = open(os.path.join(self.root, 'server.log'), 'wb')
        self.proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, cwd=self.root,
                                     start_new_session=True, env={**os.environ, **(env or {})})
        end = time.time() + wait_s
        g = r = False
        while time.time() < end and self.proc.poll() is None:
            g, r = g or can_connect(self.gport), r or can_connect(self.rport)
            if g and r: break
            time.sleep(0.02)
        if self.channel: self.channel.close()
        self.channel = grpc.insecure_channel(f'127.0.0.1:{self.gport}', options=CH_OPTS)
        if self.proc.poll() is not None:
            return {'result': 'exited', 'exit_code': self.proc.returncode, 'output_tail': self.tail()}
        return {'result': 'running', 'grpc_port_open': g, 'rest_port_open': r}

    def tail(self, n=3):
        """The last lines that the server wrote, without log prefixes and informational lines."""
        self.log.flush()
        with open(self.log.name, encoding='utf-8', errors='replace') as f:
            lines = [l.rstrip('\n') for l in f]
        rx = re.compile(r'^(?:\d{4}-\d\d-\d\d [\d:.]+: ([IWEF]) |([IWEF])\d{4} [\d:.]+\s+\d+ )')
        kept = []
        for l in lines:
            m = rx.match(l)
            if m and (m[1] or m[2]) in 'IW' or l.startswith(('WARNING: All log messages', 'To enable the following', 'Loaded custom op', '\t--')) or not l.strip():
                continue
            kept.append(self.untext(l if not m else l[m.end():]))
        return [self.opt.mask(l)[:1000] for l in kept[-n:]]

    def stop(self, sig=signal.SIGTERM):
        if self.proc is None: return
        if self.proc.poll() is None:
            for s, t in ((sig, 8), (signal.SIGKILL, 8)):
                try: os.killpg(self.proc.pid, s)
                except ProcessLookupError: pass
                try:
                    self.proc.wait(t); break
                except subprocess.TimeoutExpired: pass
        self.proc = None

    def close(self):
        for l in self.loads.values(): l['stop'].set()
        self.stop()
        if self.channel: self.channel.close()
        if getattr(self, 'log', None): self.log.close()
        if not self.opt.keep: shutil.rmtree(self.root, ignore_errors=True)

    # ---- scenario steps
    def http(self, s):
        out = do_http(f'127.0.0.1:{self.rport}', s, self.text, s.get('timeout_s', 60))
        if s.get('compare') == 'metrics' and 'body' in out:
            out['metrics'] = metrics_of(out.pop('body'))
        elif 'body' in out: out['body'] = self.untext(out['body'])
        return out

    def grpc(self, s):
        return do_grpc(self.channel, s, self.text, self.untext)

    def snapshot(self, model):
        req = get_model_status_pb2.GetModelStatusRequest(); req.model_spec.name = model
        try:
            b = self.channel.unary_unary(M + 'GetModelStatus')(req.SerializeToString(), timeout=5)
        except grpc.RpcError as e:
            return {'error': e.code().name}
        r = get_model_status_pb2.GetModelStatusResponse.FromString(b)
        return {str(v.version): {'state': STATES.get(v.state, str(v.state)), 'error_code': v.status.error_code,
                                 'error_message': self.untext(v.status.error_message)} for v in r.model_version_status}

    def poll(self, s):
        end = time.time() + s.get('timeout_s', 15)
        seen, gap, reached = [], False, False
        while True:
            snap = self.snapshot(s['model'])
            st = {k: v['state'] if isinstance(v, dict) else v for k, v in sorted(snap.items())}
            if not seen or seen[-1] != st: seen.append(st)
            gap = gap or 'AVAILABLE' not in st.values()
            if all(st.get(k) == v for k, v in s['until'].items()):
                reached = True; break
            if time.time() > end: break
            time.sleep(0.03)
        return {'reached': reached, 'final': snap, 'seen': seen, 'ever_without_available': gap}

    def step(self, s):
        do = s['do']
        if do == 'copy_model':        # a version directory from models/, renamed into place
            src, dst = os.path.join(self.opt.models, s['from']), self.path(s['to'])
            tmp = self.path('.incoming/' + s['to'].replace('/', '_'))
            shutil.rmtree(tmp, ignore_errors=True)
            shutil.copytree(src, tmp, ignore=shutil.ignore_patterns('.gitkeep'))
            os.rename(tmp, dst); return None
        if do == 'mkdir': os.makedirs(self.path(s['path']), exist_ok=True); return None
        if do == 'write':
            p = self.path(s['path'])
            with open(p + '.tmp', 'w', encoding='utf-8') as f: f.write(self.text(s['text']))
            os.rename(p + '.tmp', p); return None
        if do == 'chmod': os.chmod(self.path(s['path']), int(s['mode'], 8)); return None
        if do == 'remove':
            p = self.path(s['path'])
            if os.path.isdir(p):    # as one step for an observer: out of the way first
                t = self.path('.trash/' + s['path'].replace('/', '_')); os.rename(p, t); shutil.rmtree(t)
            else: os.remove(p)
            return None
        if do == 'rename': os.rename(self.path(s['from']), self.path(s['to'])); return None
        if do == 'sleep': time.sleep(s['seconds']); return None
        if do == 'start': return self.start(s['flags'], s.get('wait_s', 60), s.get('scann', False), s.get('env'), s.get('ports', True))
        if do == 'stop': self.stop(); return None
        if do == 'signal': os.kill(self.proc.pid, getattr(signal, 'SIG' + s['signal'])); return None
        if do == 'wait_exit':
            try: self.proc.wait(s.get('timeout_s', 15))
            except subprocess.TimeoutExpired: return {'result': 'running'}
            return {'result': 'exited', 'exit_code': self.proc.returncode}
        if do == 'alive': return {'alive': self.proc.poll() is None}
        if do == 'http': return self.http(s)
        if do == 'grpc': return self.grpc(s)
        if do == 'poll': return self.poll(s)
        if do == 'begin':             # a request in the background; its outcome is that of the 'finish' step
            box = {}
            t = threading.Thread(target=lambda: box.update(self.step(s['step'])), daemon=True); t.start()
            self.threads[s['id']] = (t, box, s['step']); return None
        if do == 'finish':
            t, box, st = self.threads[s['id']]; t.join(s.get('timeout_s', 60)); return dict(box) or {'error': 'no answer'}
        if do == 'concurrent':
            res = [None] * s['n']
            def one(i):
                ch = grpc.insecure_channel(f'127.0.0.1:{self.gport}', options=CH_OPTS)
                res[i] = do_grpc(ch, s['step'], self.text, self.untext) if s['step']['do'] == 'grpc' else self.http(s['step'])
                ch.close()
            ts = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(s['n'])]
            for t in ts: t.start()
            for t in ts: t.join(s.get('timeout_s', 60))
            k = lambda r: 'none' if r is None else f"{r['code']}: {r['details']}" if 'code' in r else str(r.get('status', r.get('error')))
            return {'kinds': sorted(set(map(k, res)))}
        if do == 'load_start':        # the same request over and over until load_stop
            l = self.loads[s['id']] = {'stop': threading.Event(), 'kinds': set(), 'n': 0}
            def run():
                while not l['stop'].is_set():
                    r = self.step(s['step']); l['n'] += 1
                    l['kinds'].add(f"{r['code']}: {r['details']}" if 'code' in r else f"{r.get('status', r.get('error'))} {r.get('body', '')}")
                    time.sleep(0.01)
            l['t'] = threading.Thread(target=run, daemon=True); l['t'].start(); return None
        if do == 'load_stop':
            l = self.loads[s['id']]; l['stop'].set(); l['t'].join(60); return {'kinds': sorted(l['kinds'])}
        raise ValueError(do)

    def diff_step(self, s, want, got):
        mask, do = self.opt.mask, s['do']
        if do == 'finish': s = next(x for x in self.steps if x.get('id') == s['id'] and x['do'] == 'begin')['step']; do = s['do']
        if want is None: return []
        if do == 'http': return diff_http(want, got, mask, compare=s.get('compare'))
        if do == 'grpc': return diff_grpc(s['method'], want, got, mask)
        if do == 'poll':
            out = []
            if want['reached'] != got['reached']:
                out.append(('status', f"expected reached={want['reached']}, got {got['reached']}; seen {got['seen']}"))
            m = lambda f: {k: ({**v, 'error_message': ''} if isinstance(v, dict) else v) for k, v in f.items()}
            d = json_diff(m(want['final']), m(got['final']), mask)
            if d: out.append(('status', d))
            elif json_diff(want['final'], got['final'], mask):
                out.append(('text', json_diff(want['final'], got['final'], mask)))
            if not want['ever_without_available'] and got['ever_without_available']:
                out.append(('status', f"at some moment no version was AVAILABLE: {got['seen']}"))
            return out
        if do in ('load_stop', 'concurrent'):
            if do == 'load_stop' and not got['kinds']: return [('status', 'no request was answered')]
            extra = set(map(mask, got['kinds'])) - set(map(mask, want['kinds']))
            return [('status', f"unexpected {sorted(extra)}, recorded {want['kinds']}")] if extra else []
        out = []
        for k in want:
            if k == 'output_tail':
                if list(map(mask, want[k])) != list(map(mask, got.get(k, []))):
                    out.append(('output', f"expected {want[k]}, got {got.get(k)}"))
            elif want[k] != got.get(k):
                out.append(('status', f'{k}: expected {want[k]!r}, got {got.get(k)!r}'))
        return out

    def scenario(self, sc, record=False):
        self.steps = sc['steps']
        diffs = []
        for i, s in enumerate(sc['steps']):
            got = self.step(s)
            if record:
                s.pop('outcome', None)
                if got is not None: s['outcome'] = got
            else:
                diffs += [(k, f"step {i} ({s['do']}{' ' + s['note'] if 'note' in s else ''}): {d}") for k, d in self.diff_step(s, s.get('outcome'), got or {})]
                if any(k == 'status' for k, _ in diffs) and s['do'] == 'start': break
        return diffs


# ---------------------------------------------------------------- running suites
def load_cases(corpus, suite):
    out = []
    for p in sorted(glob.glob(os.path.join(corpus, suite, '*'))):
        if p.endswith('.jsonl'):
            with open(p, encoding='utf-8') as f: out += [json.loads(l) for l in f if l.strip()]
        elif p.endswith('.json'): out.append(load_json(p))
    return out


class NotServing(Exception):
    pass


def start_setup(opt, name):
    sp = load_json(os.path.join(HERE, 'setups.json'))[name]
    w = World(opt)
    for st in sp['prepare']: w.step(st)
    r = w.start(sp['flags'], scann=sp.get('scann', False))
    if not (r.get('grpc_port_open') and r.get('rest_port_open')):
        tail = w.tail(20)
        w.close()
        raise NotServing(f'setup {name}: the server does not serve: {r} {tail}')
    return w


def run_scenario(opt, c, record=False):
    w = World(opt)
    try: return w.scenario(c, record)
    finally: w.close()


class Target:
    def __init__(self, rest, grpc_):
        self.rest, self.untext, self.text = rest, lambda s: s, lambda s: s
        self.channel = grpc.insecure_channel(grpc_, options=CH_OPTS) if grpc_ else None


def stateless(opt, suite, cases, record=False):
    """Yields (case, diffs); fills in the responses when recording."""
    by = collections.OrderedDict()
    for c in cases: by.setdefault(c['setup'], []).append(c)
    for setup, cs in by.items():
        try:
            w = Target(opt.rest, opt.grpc) if (opt.rest or opt.grpc) else start_setup(opt, setup)
        except NotServing as e:
            if record: raise
            for c in cs: yield c, [('status', str(e)[:500])]
            continue
        try:
            rest = opt.rest or f'127.0.0.1:{getattr(w, "rport", 0)}'
            for c in cs:
                if suite == 'rest':
                    got = do_http(rest, c['request'], w.text)
                    if 'body' in got: got['body'] = w.untext(got['body'])
                    if c.get('compare') == 'metrics': got['metrics'] = metrics_of(got.pop('body', ''))
                    d = None if record else diff_http(c['response'], got, opt.mask, opt.strict, c.get('compare'))
                else:
                    got = do_grpc(w.channel, c['request'], w.text, w.untext)
                    d = None if record else diff_grpc(c['request']['method'], c['response'], got, opt.mask, opt.strict)
                if record: c['response'] = got
                yield c, d
        finally:
            if isinstance(w, World): w.close()


def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--corpus', default=HERE, help='directory with rest/, grpc/ and scenarios/ (default: that of this script)')
    ap.add_argument('--models', help='directory of the SavedModels (default: models/ beside this script, or one level up)')
    ap.add_argument('--server', help='command template with {flags} (and, if wanted, {scann}: 1 or 0)')
    ap.add_argument('--rest', help='host:port of a running server (rest suite)')
    ap.add_argument('--grpc', help='host:port of a running server (grpc suite)')
    ap.add_argument('--setup', help='only the cases of this setup (see setups.json)')
    ap.add_argument('--suite', action='append', choices=SUITES)
    ap.add_argument('--only', help='glob on case names')
    ap.add_argument('--ignore', default='', help='comma-separated kinds of difference not to count: status, headers, body, text, output')
    ap.add_argument('--scann', choices=('yes', 'no', 'both'), default='both', help='which ScaNN cases to run: the ones that need the ops, the ones that need their absence, both')
    ap.add_argument('--strict', action='store_true', help='REST bodies byte for byte')
    ap.add_argument('--json', help='write a report here')
    ap.add_argument('--work', default=os.path.join(tempfile.gettempdir(), 'conformance'), help='where working directories are made')
    ap.add_argument('--ports', default='19000-19999')
    ap.add_argument('--jobs', type=int, default=2, help='scenarios run at once (each with a server of its own)')
    ap.add_argument('--keep', action='store_true', help='keep the working directories')
    ap.add_argument('-q', '--quiet', action='store_true')
    opt = ap.parse_args(argv)
    opt.mask = Masks(os.path.join(HERE, 'masks.json'))
    opt.ports = Ports(opt.ports)
    if not opt.models:
        opt.models = next(p for p in (os.path.join(HERE, 'models'), os.path.join(HERE, '..', 'models')) if os.path.isdir(p))
    if not (opt.server or opt.rest or opt.grpc): ap.error('--server, or --rest and/or --grpc, is needed')
    ignore = set(filter(None, opt.ignore.split(',')))
    setups = load_json(os.path.join(HERE, 'setups.json'))
    report, bad_total = {'suites': {}, 'cases': []}, 0
    for suite in opt.suite or SUITES:
        cases = load_cases(opt.corpus, suite)
        if opt.only: cases = [c for c in cases if fnmatch.fnmatch(c['name'], opt.only)]
        if opt.setup: cases = [c for c in cases if c.get('setup') == opt.setup]
        if opt.rest or opt.grpc:
            if suite == 'scenarios' or not getattr(opt, suite): continue
        def scann_of(c):
            return setups[c['setup']].get('scann_cases') if suite != 'scenarios' else c.get('scann_cases')
        if opt.scann != 'both': cases = [c for c in cases if scann_of(c) in (None, opt.scann)]
        def results():
            if suite != 'scenarios':
                yield from stateless(opt, suite, cases); return
            with concurrent.futures.ThreadPoolExecutor(opt.jobs) as ex:
                yield from ex.map(lambda c: (c, run_scenario(opt, c)), cases)
        n = ok = 0; kinds = collections.Counter(); t0 = time.time()
        for c, d in results():
            d = [x for x in d if x[0] not in ignore]
            n += 1; ok += not d
            report['cases'].append({'suite': suite, 'name': c['name'], 'agrees': not d, 'differences': d})
            for k in {k for k, _ in d}: kinds[k] += 1
            if d and not opt.quiet:
                print(f'DISAGREES {suite}/{c["name"]}')
                for k, x in d[:6]: print(f'    [{k}] {x}')
                sys.stdout.flush()
        report['suites'][suite] = {'cases': n, 'agree': ok, 'disagree': n - ok, 'kinds': dict(kinds), 'seconds': round(time.time() - t0, 1)}
        print(f'{suite}: {ok} of {n} agree' + (f'; disagreements by kind: {dict(kinds)}' if n - ok else '') + f' ({time.time() - t0:.0f} s)')
        bad_total += n - ok
    if opt.json:
        with open(opt.json, 'w') as f: json.dump(report, f, indent=1, ensure_ascii=False)
    return 1 if bad_total or not report['cases'] else 0


if __name__ == '__main__':
    sys.exit(main())
