#!/usr/bin/env python3
"""Makes the SavedModels of this corpus (fixed seeds), next to this file.

Needs tensorflow 2.20, tf_keras, tensorflow-recommenders, scann 1.4.2 and
tensorflow-serving-api (for the warm-up records).
"""
import os
import shutil

os.environ['TF_USE_LEGACY_KERAS'] = '1'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras
from tensorflow.python.saved_model import builder as bld
from tensorflow.python.saved_model import signature_def_utils as sdu
from tensorflow.python.saved_model import tag_constants as tc
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

HERE = os.path.dirname(os.path.abspath(__file__))
tf1 = tf.compat.v1


def fresh(*p):
    d = os.path.join(HERE, *p)
    shutil.rmtree(d, ignore_errors=True)
    os.makedirs(os.path.dirname(d), exist_ok=True)
    return d


def half_plus(path, b_value):
    """y = x / 2 + b, with predict, regress, classify and several-tensor signatures."""
    g = tf.Graph()
    with g.as_default(), tf1.Session(graph=g) as s:
        a = tf1.get_variable('a', initializer=0.5, use_resource=True)
        b = tf1.get_variable('b', initializer=float(b_value), use_resource=True)
        px = tf1.placeholder(tf.float32, [None], name='px')
        py = tf.add(a * px, b, name='py')
        ser = tf1.placeholder(tf.string, [None], name='tf_example')
        f = tf1.parse_example(ser, {
            'x': tf1.FixedLenFeature([1], tf.float32),
            'x2': tf1.FixedLenFeature([1], tf.float32, default_value=[0.0])})
        y = tf.add(a * f['x'], b, name='y')
        y2 = tf.add(a * f['x2'], 3.0, name='y2')
        ysq = tf.squeeze(y, [1])
        n = tf.shape(y)[0]
        classes = tf.tile(tf.constant([['low', 'high']]), [n, 1])
        p = tf.sigmoid(y - 3.0)
        scores = tf.concat([1.0 - p, p], 1, name='class_scores')
        ma = tf1.placeholder(tf.float32, [None], name='ma')
        mb = tf1.placeholder(tf.float32, [None, 2], name='mb')
        msum = tf.add(ma, tf.reduce_sum(mb, 1), name='msum')
        mprod = tf.multiply(mb, ma[:, tf.newaxis], name='mprod')
        s.run(tf1.global_variables_initializer())
        sigs = {
            'serving_default': sdu.predict_signature_def({'x': px}, {'y': py}),
            'regress_x_to_y': sdu.regression_signature_def(ser, y),
            'regress_x_to_y_rank1': sdu.regression_signature_def(ser, ysq),
            'regress_x2_to_y3': sdu.regression_signature_def(ser, y2),
            'classify_x_to_y': sdu.classification_signature_def(ser, classes, scores),
            'classify_scores_only': sdu.classification_signature_def(ser, None, scores),
            'classify_classes_only': sdu.classification_signature_def(ser, classes, None),
            'multi_in_out': sdu.predict_signature_def({'a': ma, 'b': mb}, {'sum': msum, 'prod': mprod}),
        }
        w = bld.SavedModelBuilder(path)
        w.add_meta_graph_and_variables(s, [tc.SERVING], signature_def_map=sigs)
        w.save()


class Dtypes(tf.Module):
    SPECIAL32 = [float('nan'), float('inf'), float('-inf'), 3.4028235e38, -3.4028235e38, 1e-45, 1.1754944e-38, -0.0, 0.0,
                 0.1, 1 / 3, 16777217.0, 123456.789, 1e10, 1e20, 1e21, 1e22, 1e-4, 1e-5, 1e-6, 1e-7, 100.0, 1234567.0, 12345678.0]
    SPECIAL64 = [float('nan'), float('inf'), float('-inf'), 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, -0.0, 0.0,
                 0.1, 1 / 3, 9007199254740993.0, 123456.789, 1e15, 1e16, 1e17, 1e20, 1e21, 1e22, 1e-4, 1e-5, 1e-6, 1e-7, 100.0]
    INT64 = [0, 1, -1, 2**31, 2**53 - 1, 2**53 + 1, -2**53 - 1, 2**63 - 1, -2**63]
    STRINGS = [b'plain', 'caf\u00e9'.encode(), '\u4e03\u4eba\u306e\u4f8d'.encode(), '\U0001f3ac'.encode(), b'quote " and \\ back',
               b'tab\tnl\ncr\r', b'\x01\x1f\x7f', '\u2028\u2029'.encode(), b'</script>', b'', b'a/b']
    BAD_UTF8 = [b'\xff\xfe\x00\x01', b'ok']

    def sigs(self):
        out = {}
        def ident(name, dt, shape=(None,)):
            @tf.function(input_signature=[tf.TensorSpec(None if shape is None else list(shape), dt, name='x')])
            def f(x):
                return {'y': tf.identity(x)}
            out[name] = f
        for n, dt in (('float32', tf.float32), ('float64', tf.float64), ('int32', tf.int32), ('int64', tf.int64),
                      ('uint8', tf.uint8), ('bool', tf.bool), ('string', tf.string), ('int8', tf.int8), ('int16', tf.int16),
                      ('uint16', tf.uint16), ('uint32', tf.uint32), ('uint64', tf.uint64), ('half', tf.half),
                      ('complex64', tf.complex64)):
            ident(n, dt)
        ident('scalar_float', tf.float32, ())
        ident('scalar_string', tf.string, ())
        ident('rank2_float', tf.float32, (None, 3))
        ident('rank2_string', tf.string, (None, 2))
        ident('rank3_int', tf.int32, (None, 2, 2))
        ident('fixed_batch2', tf.float32, (2,))
        ident('unknown_rank_float', tf.float32, None)
        ident('unknown_rank_string', tf.string, None)

        def const_rows(name, values, dt, key='y'):
            c = tf.constant(values, dt)
            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name='x')])
            def f(x):
                return {key: tf.tile(c[tf.newaxis], [tf.shape(x)[0], 1])}
            out[name] = f
        const_rows('special_float32', self.SPECIAL32, tf.float32)
        const_rows('special_float64', self.SPECIAL64, tf.float64)
        const_rows('big_int64', self.INT64, tf.int64)
        const_rows('strings_out', self.STRINGS, tf.string)
        const_rows('strings_out_bytes', self.STRINGS + self.BAD_UTF8, tf.string, 'y_bytes')
        const_rows('bad_utf8_out', self.BAD_UTF8, tf.string)

        spec = lambda dt, n='x', shape=(None,): tf.TensorSpec(list(shape), dt, name=n)
        def sig(name, *specs):
            def deco(f):
                out[name] = tf.function(f, input_signature=list(specs))
            return deco
        @sig('bytes_one', spec(tf.string, 'data'))
        def _(data): return {'data_bytes': tf.identity(data)}
        @sig('bytes_two', spec(tf.string, 'data'))
        def _(data): return {'data_bytes': tf.identity(data), 'plain': tf.strings.join(['<', data, '>'])}
        @sig('bytes_in', spec(tf.string, 'image_bytes'))
        def _(image_bytes): return {'length': tf.strings.length(image_bytes)}
        @sig('zero_width', spec(tf.float32))
        def _(x): return {'y': tf.zeros([tf.shape(x)[0], 0])}
        @sig('scalar_out', spec(tf.float32))
        def _(x): return {'y': tf.reduce_sum(x)}
        @sig('row_and_scalar_out', spec(tf.float32))
        def _(x): return {'y': tf.identity(x), 'total': tf.reduce_sum(x)}
        @sig('different_batch_out', spec(tf.float32))
        def _(x): return {'y': tf.identity(x), 'z': tf.constant([1.0, 2.0, 3.0, 4.0])}
        @sig('string_length', spec(tf.string))
        def _(x): return {'n': tf.strings.length(x)}
        @sig('total', spec(tf.float32, 'x', (None, None)))
        def _(x): return {'n': tf.shape(x)[1] * tf.ones([tf.shape(x)[0]], tf.int32)}
        @sig('two_in', spec(tf.int32, 'a'), spec(tf.string, 'b'))
        def _(a, b): return {'a_out': tf.identity(a), 'b_out': tf.identity(b)}
        @sig('add_two', spec(tf.float32, 'a'), spec(tf.float32, 'b'))
        def _(a, b): return {'sum': a + b}
        table = tf.constant([10.0, 11.0, 12.0])
        @sig('gather', spec(tf.int32, 'i'))
        def _(i): return {'v': tf.gather(table, i)}
        @sig('slow', spec(tf.int32, 'n'))
        def _(n):
            m = tf.reduce_max(n)
            r = tf.while_loop(lambda i, a: i < m, lambda i, a: (i + 1, tf.tanh(a + tf.cast(i, tf.float32))),
                              (0, tf.zeros([16])), parallel_iterations=1)
            return {'done': tf.minimum(n, r[0])}
        return out


def dtypes(path):
    m = Dtypes()
    tf.saved_model.save(m, path, signatures=m.sigs())


USERS = [f'user-{i}' for i in range(46)] + ['usér-é', '用户', 'user "q"', 'user/slash']
CANDS = [f'item-{i}' for i in range(50)] + ['Amélie (2001)', '七人の侍', 'The "Quoted" One', "it's", 'back\\slash',
                                            'tab\there', 'emoji 🎬', '<b>&amp;</b>', 'Ñandú, El', 'a/b?c=d#e']


def retrieval(path, seed, scann, k=5):
    rng = np.random.default_rng(seed)
    tf_keras.utils.set_random_seed(seed)
    emb = rng.normal(size=(len(USERS) + 1, 8)).astype('f4')
    cand = rng.normal(size=(len(CANDS), 8)).astype('f4')
    q = tf_keras.Sequential([
        tf_keras.layers.StringLookup(vocabulary=USERS, mask_token=None),
        tf_keras.layers.Embedding(len(USERS) + 1, 8, embeddings_initializer=tf_keras.initializers.Constant(emb))])
    q(tf.constant(['user-1']))
    if scann:
        index = tfrs.layers.factorized_top_k.ScaNN(q, k=k, num_leaves=4, num_leaves_to_search=4, num_reordering_candidates=60)
    else:
        index = tfrs.layers.factorized_top_k.BruteForce(q, k=k)
    index.index_from_dataset(tf.data.Dataset.zip((
        tf.data.Dataset.from_tensor_slices(CANDS).batch(60), tf.data.Dataset.from_tensor_slices(cand).batch(60))))
    index(tf.constant(['user-1']))

    class M(tf.Module):
        def __init__(self):
            super().__init__()
            self.index = index

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='user_id')])
        def serve(self, user_id):
            s, i = self.index(user_id)
            return {'candidate_ids': i, 'scores': s}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='user_id'), tf.TensorSpec([], tf.int32, name='k')])
        def with_k(self, user_id, k):
            s, i = self.index(user_id, k=k)
            return {'candidate_ids': i, 'scores': s}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='user_id'),
                                      tf.TensorSpec([None, 2], tf.string, name='exclude')])
        def excluding(self, user_id, exclude):
            s, i = self.index.query_with_exclusions(user_id, exclude)
            return {'candidate_ids': i, 'scores': s}
    m = M()
    tf.saved_model.save(m, path, signatures={'serving_default': m.serve, 'with_k': m.with_k, 'excluding': m.excluding},
                        options=tf.saved_model.SaveOptions(namespace_whitelist=['Scann']) if scann else None)


def warmup(version_dir, requests):
    d = os.path.join(version_dir, 'assets.extra')
    os.makedirs(d, exist_ok=True)
    with tf.io.TFRecordWriter(os.path.join(d, 'tf_serving_warmup_requests')) as w:
        for r in requests:
            w.write(r)


def predict_log(model, sig, **inputs):
    r = predict_pb2.PredictRequest()
    r.model_spec.name = model
    r.model_spec.signature_name = sig
    for k, v in inputs.items():
        r.inputs[k].CopyFrom(tf.make_tensor_proto(v))
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=r)).SerializeToString()


def main():
    for v, b in ((1, 2), (2, 3)):
        half_plus(fresh('half_plus_two', str(v)), b)
    h1 = os.path.join(HERE, 'half_plus_two', '1')
    dtypes(fresh('dtypes', '1'))
    for v in (1, 2):
        retrieval(fresh('retrieval_brute_force', str(v)), v, False)
    retrieval(fresh('retrieval_scann', '1'), 1, True)
    # Broken or odd ones; each is a model directory of its own.
    d = fresh('broken', 'truncated_pb', '3'); shutil.copytree(h1, d)
    with open(d + '/saved_model.pb', 'r+b') as f: f.truncate(200)
    d = fresh('broken', 'no_variables', '3'); shutil.copytree(h1, d); shutil.rmtree(d + '/variables')
    d = fresh('broken', 'empty_version', '3'); os.makedirs(d); open(d + '/.gitkeep', 'w').close()
    d = fresh('broken', 'zero_padded', '00003'); shutil.copytree(h1, d)
    d = fresh('broken', 'non_integer', 'latest'); shutil.copytree(h1, d)
    d = fresh('broken', 'warmup_good', '3'); shutil.copytree(h1, d)
    warmup(d, [predict_log('half_plus_two', 'serving_default', x=np.array([1, 2], 'f4'))] * 2)
    d = fresh('broken', 'warmup_failing', '3'); shutil.copytree(h1, d)
    warmup(d, [predict_log('half_plus_two', 'serving_default', nope=np.array([1, 2], 'f4'))])
    d = fresh('broken', 'warmup_garbage', '3'); shutil.copytree(h1, d)
    warmup(d, [b'not a PredictionLog'])
    for dp, dn, _ in os.walk(HERE):
        if dp.endswith('/assets') and not os.listdir(dp): os.rmdir(dp)


if __name__ == '__main__':
    main()
