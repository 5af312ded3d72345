#!/usr/bin/env python3
"""Wall time and peak anonymous memory of a command. usage: peak.py COMMAND ARG ...   (Linux)"""
import subprocess
import time

from common import arguments

command = arguments(lambda onnxq, folder: [onnxq, "recipe", "list"])
start = time.time()
process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
peak = 0
while process.poll() is None:
    try:
        with open(f"/proc/{process.pid}/status") as status:
            for line in status:
                if line.startswith("RssAnon"):
                    peak = max(peak, int(line.split()[1]))
    except OSError:
        pass
    time.sleep(0.003)
print(f"exit {process.returncode}, {time.time() - start:.2f} s, peak anonymous memory {peak / 1024:.1f} MiB")
