# ruff: noqa
# mypy: ignore-errors
"""Unsafe calls for the checker to find. Never imported."""

import builtins
import os
import pickle
import shelve as shelf
import subprocess
import tempfile
from asyncio import create_subprocess_shell
from pickle import loads as read

import jinja2
import numpy
import numpy as np
import torch
import yaml
from numpy import load as open_array
from torch import load as get
from yaml import UnsafeLoader, load

pickle.load(file)  # unsafe
pickle.loads(data)  # unsafe
read(data)  # unsafe
pickle.Unpickler(file).load()  # unsafe
chosen = pickle.loads  # unsafe
shelf.open("a")  # unsafe
torch.load("a")  # unsafe
torch.load("a", weights_only=True)  # unsafe
get("a", weights_only=False)  # unsafe
torch.hub.load("a", "b")  # unsafe
torch.jit.load("a")  # unsafe
np.load("a")  # unsafe
numpy.load("a", allow_pickle=True)  # unsafe
np.load("a", allow_pickle=wanted)  # unsafe
open_array("a", mmap_mode="r")  # unsafe
np.save("a", array, allow_pickle=True)  # unsafe
yaml.load(text)  # unsafe
load(text)  # unsafe
load(text, Loader=UnsafeLoader)  # unsafe
yaml.load(text, yaml.Loader)  # unsafe
yaml.load(text, yaml.FullLoader)  # unsafe
yaml.unsafe_load(text)  # unsafe
yaml.full_load(text)  # unsafe
os.system(text)  # unsafe
os.popen(text)  # unsafe
subprocess.run(text, shell=True)  # unsafe
subprocess.getoutput(text)  # unsafe
create_subprocess_shell(text, shell=True)  # unsafe
asyncio.create_subprocess_shell(text)  # unsafe
tempfile.mktemp()  # unsafe
eval(text)  # unsafe
exec(text)  # unsafe
builtins.eval(text)  # unsafe
AutoModel.from_pretrained("a")  # unsafe
AutoModel.from_pretrained("a", trust_remote_code=True)  # unsafe
AutoModel.from_pretrained("a", trust_remote_code=wanted)  # unsafe
AutoModel.from_pretrained("a", trust_remote_code=False, use_safetensors=False)  # unsafe
settings = {"trust_remote_code": True}  # unsafe
Pipeline("a", trust_remote_code=True)  # unsafe
requests.get("a", verify=False)  # unsafe
jinja2.Template(text)  # unsafe
jinja2.Environment(autoescape=False)  # unsafe
bundle.extractall("a")  # unsafe
bundle.extract("a", filter="fully_trusted")  # unsafe
frame.read_pickle("a")  # unsafe
Path("a").chmod(0o777)  # unsafe
Path("a").mkdir(mode=0o1777)  # unsafe

np.load("a", allow_pickle=False)
Path("a").chmod(0o750)
yaml.safe_load(text)
yaml.load(text, Loader=yaml.SafeLoader)
subprocess.run(["a", "b"], check=True)
AutoModel.from_pretrained("a", trust_remote_code=False, use_safetensors=True)
AutoModel.from_pretrained("a", **settings)
client(verify=True)
model.eval()
torch.save
json.loads(text)
weights.load("a")
config = {"trust_remote_code": False, "verify": 0}
