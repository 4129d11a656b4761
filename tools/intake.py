"""``haystack intake``: takes uploads for the photo service, on the machine of a Store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haystack.config import Configuration
from haystack.errors import ConfigError
from haystack.lifetime import log_to_stderr
from tools.app import App, config_option, pass_app, secret_option, settings_options

if TYPE_CHECKING:
    from frontend.intake.settings import IntakeSettings


@click.command()
@settings_options("intake")
@secret_option
@config_option
@pass_app
def intake(app: App, /, **flags: object) -> None:
    """Run one intake until it is told to stop. It stands beside a Store, which names it: --service intake=HOST:PORT.

    Settings come from the tables [cluster] and [intake] of the configuration file, then from HAYSTACK_INTAKE_…
    variables, then from flags.
    """
    log_to_stderr()
    settings = intake_settings(app.configuration().with_flags("intake", flags))
    # Imported here: the command must start fast, and what makes pictures is large.
    from frontend.intake.server import run

    run(settings)


def intake_settings(configuration: Configuration) -> IntakeSettings:
    """Return an intake's settings. Raises ConfigError."""
    options = configuration.intake()
    secret = configuration.secret()
    if secret is None:
        raise ConfigError(
            "there is no secret, and tickets are signed with one: give --secret-file FILE (see docs/configuration.md)"
        )
    from frontend.images.settings import ImageSettings
    from frontend.intake.settings import IntakeSettings

    return IntakeSettings(
        data=options.data,
        host=options.host,
        port=options.port,
        store=options.store,
        frontends=tuple(url.rstrip("/") for url in options.frontends),
        secret=secret,
        images=ImageSettings(
            max_bytes=options.max_upload_bytes, max_pixels=options.max_pixels, avif=options.avif == "on"
        ),
        image_processes=options.process_count,
        image_seconds=options.image_seconds,
        image_memory_bytes=options.image_memory_bytes,
        max_uploads=options.max_uploads,
        max_uploads_bytes=options.max_uploads_bytes,
    )
