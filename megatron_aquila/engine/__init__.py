"""All contact with megatron.core: device, parallel groups, model, optimizer and the training step."""
