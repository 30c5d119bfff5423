"""Packaging; the tools' settings are in pyproject.toml."""

import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent
PRESETS = 'diffmavil_jax.configs'
BEAM = 'apache-beam>=2.77,<3'
WANDB, MLFLOW = 'wandb>=0.25,<1', 'mlflow-skinny>=3,<4'
HUB = 'huggingface_hub>=2,<3'
NOTEBOOK = ['ipykernel>=6.29,<8', 'nbclient>=0.10,<1', 'nbformat>=5.10,<6']


def requirements() -> list[str]:
    """The lines of requirements.txt, without comments."""
    lines = (ROOT / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    return [bare for line in lines if (bare := line.split('#')[0].strip())]


def jax_with(extra: str) -> str:
    """The requirement on jax with one of jax's own extras, in the same range."""
    (jax,) = (line for line in requirements() if line.startswith('jax>'))
    return jax.replace('jax', f'jax[{extra}]', 1)


def long_description() -> str:
    """The README, where there is one."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


setuptools.setup(
    name='diffmavil-jax',
    version='0.1.0',
    description='Self-supervised audio-video pretraining (DiffMAViL and MAViL) in JAX and Flax',
    long_description=long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11,<3.14',
    # The presets stay at the top of a checkout; a wheel has them as diffmavil_jax.configs.
    packages=sorted({*setuptools.find_packages(include=['diffmavil_jax', 'diffmavil_jax.*']), PRESETS}),
    package_dir={PRESETS: 'configs'},
    package_data={
        'diffmavil_jax.report': ['templates/*.jinja'],
        'diffmavil_jax.saved.demo': ['*.json', '*.safetensors'],
    },
    entry_points={'console_scripts': ['diffmavil = diffmavil_jax.cli:main']},
    install_requires=requirements(),
    extras_require={
        'test': [
            BEAM,
            HUB,
            MLFLOW,
            WANDB,
            *NOTEBOOK,
            'beartype>=0.20,<1',
            'import-linter>=2.5,<3',
            'mypy>=1.18,<3',
            'psutil>=6,<8',
            'pytest>=8.4,<10',
            'pytest-xdist>=3.8,<4',
            'ruff>=0.17,<0.18',  # the formatter's output changes with the minor version
        ],
        'build': [BEAM],  # `diffmavil prepare`
        'tpu': [jax_with('tpu')],
        'cuda': [jax_with('cuda13')],
        'gcs': ['gcsfs>=2025.3', 'google-cloud-storage>=2.18,<4', 'google-cloud-storage-control>=1.2,<2'],
        'hub': [HUB],  # networks at hf://ORG/NAME
        'wandb': [WANDB],
        'mlflow': [MLFLOW],
        'torch': ['torch>=2.6,<3'],
        'notebook': NOTEBOOK,
    },
)
