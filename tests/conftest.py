"""Tests run on 8 fake CPU devices; this is read before any test imports JAX."""

import os

FAKE_DEVICES = '--xla_force_host_platform_device_count'

flags = os.environ.get('XLA_FLAGS', '')
if FAKE_DEVICES not in flags:
    os.environ['XLA_FLAGS'] = f'{flags} {FAKE_DEVICES}=8'.strip()
os.environ['JAX_PLATFORMS'] = 'cpu'
