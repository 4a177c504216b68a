"""What the test around a script does for it: kills masters and agents, and the like.

A step is a line of words on the standard output; the answer is a line of JSON on the
standard input.
"""

import json
import sys


def step(*words):
    print("STEP", *words, flush=True)
    line = sys.stdin.readline()
    answer = json.loads(line) if line.strip() else {"error": "nobody answers"}
    if "error" in answer:
        raise RuntimeError(f"{' '.join(map(str, words))}: {answer['error']}")
    return answer.get("value")
