"""Networks: from a spec to a module, with weights drawn from the spec's seed alone."""
