"""A plugin that was built against the first HOOK_API. Never change it: that it keeps working is the test."""

from corecompress import Component, hookimpl


@hookimpl
def compressor_components():
    return [
        Component("first-store", "first_api.work:Store", "stores bytes as they are"),
        Component("first-copy", "first_api.work:Copy", "the same checkpoint again", api=1),
    ]


@hookimpl
def data_components():
    return [Component("first-numbers", "first_api.work:Numbers", "whole numbers", 1)]


@hookimpl
def encoder_components():
    return [Component("first-same", "first_api.work:Same", "latents are the data")]


@hookimpl
def prior_components():
    return [Component("first-flat", "first_api.work:Flat", "all symbols alike")]
