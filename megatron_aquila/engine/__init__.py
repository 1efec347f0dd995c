"""All contact with megatron.core: device, parallel groups, model, optimizer and the training step."""

import warnings

# Said at every start on every rank, about what `aquila doctor` shows once: what is not installed, and calls inside
# Megatron that newer versions of torch name otherwise.
for _message in (
    "Transformer Engine and Apex are not installed",
    "Apex is not installed",
    "full scope is deprecated",
    "The .grad attribute of a Tensor that is not a leaf",
    "When using async grad allreduce it is recommended",
    "`torch.distributed.",
):
    warnings.filterwarnings("ignore", message=_message)
