"""`diffmavil import`: networks of other projects, as directories that a run can start from."""

from __future__ import annotations

import argparse

from diffmavil_jax.commands.command import WRONG, Command, fail
from diffmavil_jax.config.clips import FRONT_ENDS
from diffmavil_jax.interop.layouts import LAYOUTS


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('file', metavar='FILE', help='a .safetensors file or, if PyTorch is installed, a file of torch.save')
    add('--layout', required=True, choices=tuple(LAYOUTS), help='the project whose names the parameters have')
    add('--output', required=True, metavar='DIR', help='the directory to write')
    add(
        '--encoder',
        choices=('audio', 'video', 'both'),
        help='which encoders to make (default: all that the file has)',
    )
    add('--front_end', choices=tuple(FRONT_ENDS), help='the front end of sound (default: that of the layout)')
    add('--frames', type=_positive, metavar='N', help='frames of a clip, if the file does not tell')
    add(
        '--patch_frames',
        type=_positive,
        metavar='N',
        help='frames of a tubelet, if the network was trained on pictures',
    )
    add('--licence', default='not stated', metavar='TEXT', help='licence of the parameters, for the card')
    add('--overwrite', action='store_true', help='set aside what is in DIR')


def _run(flags: argparse.Namespace) -> int:
    from diffmavil_jax.interop.importing import Options, import_weights

    modalities = {None: None, 'both': ('audio', 'video')}.get(flags.encoder, (flags.encoder,))
    there = LAYOUTS[flags.layout].encoders
    if modalities is not None and not set(modalities) <= set(there):
        has = ' and '.join(there)
        return fail(f'--encoder={flags.encoder}: --layout={flags.layout} has {has} only.', WRONG)
    options = Options(modalities, flags.front_end, flags.frames, flags.patch_frames, flags.licence)
    card = import_weights(flags.layout, flags.file, flags.output, options, overwrite=flags.overwrite)
    size, source = card['size'], card['source']
    print(
        f'{flags.output}: {", ".join(card["parts"])}; {size["name"]}, {size["width"]} wide, {size["depth"]} '
        f'layers, {card["parameters"]:,} parameters.'
    )
    used, left_out = len(source['keys_used']), source['keys_left_out']
    some = f': {", ".join(left_out[:5])}{", ..." if len(left_out) > 5 else ""}' if left_out else ''
    print(f'{used} keys of the file are used, {len(left_out)} are left out{some}.')
    for remark in card['remarks']:
        print(remark)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text}: must be at least 1')
    return value


COMMAND = Command(
    'Turns a PyTorch checkpoint of another project into a directory that a run can start from.',
    _add_flags,
    _run,
)
