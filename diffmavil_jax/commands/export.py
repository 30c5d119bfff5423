"""`diffmavil export`: the encoders of a run, to be used elsewhere."""

from __future__ import annotations

import argparse

from diffmavil_jax.commands.command import WRONG, Command, fail


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('run', metavar='RUN', help='the workdir of a run, an import or an export')
    add('--output', required=True, metavar='DIR', help='the directory to write')
    add(
        '--format',
        default='safetensors',
        choices=('safetensors', 'jax', 'timm'),
        help='one file, an Orbax checkpoint, or a state dict of each encoder for timm (default: %(default)s)',
    )
    add(
        '--dtype',
        default='float32',
        choices=('float32', 'bfloat16'),
        help='of the parameters in the file of --format=safetensors (default: %(default)s)',
    )
    add('--licence', default='', metavar='TEXT', help='licence of the parameters, for the card')
    add('--overwrite', action='store_true', help='set aside what is in DIR')
    add(
        '--push', metavar='hf://ORG/NAME', help='a repository on the Hugging Face Hub to upload it to as well'
    )


def _run(flags: argparse.Namespace) -> int:
    if flags.dtype != 'float32' and flags.format != 'safetensors':
        return fail(f'--dtype={flags.dtype}: is for --format=safetensors alone.', WRONG)
    from diffmavil_jax.interop.exporting import export
    from diffmavil_jax.interop.model_card import model_card
    from diffmavil_jax.storage import hub
    from diffmavil_jax.storage.paths import open_path

    if flags.push:
        hub.check_push(flags.push)
    card = export(
        flags.run,
        flags.output,
        flags.format,
        licence=flags.licence,
        overwrite=flags.overwrite,
        dtype=flags.dtype,
    )
    print(f'{flags.output}: {", ".join(card["parts"])}; {card["parameters"]:,} parameters.')
    for remark in card['remarks']:
        print(remark)
    if flags.push:
        root = open_path(flags.output)
        (root / 'README.md').write_text(model_card(card, flags.push), encoding='utf-8')
        print(hub.push(root, flags.push, f'Export at {card["samples_seen"]:,} clips'))
    return 0


COMMAND = Command(
    'Writes the encoders and the fusion of a run, with a card that describes them.', _add_flags, _run
)
