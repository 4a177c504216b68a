"""Prints where the quickstart's executors ran: `quickstart_summary.py MEZZ BEFORE AFTER`."""

import collections
import json
import subprocess
import sys

mezz, before, after = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])


def listed(*args):
    return json.loads(subprocess.run([mezz, *args, "--output", "json"], check=True, stdout=subprocess.PIPE).stdout)


framework = next(f for f in listed("frameworks", "--completed"))
tasks = [t for t in listed("tasks", "--completed") if t["framework_id"] == framework["id"]]
print(f"  {after - before:.1f} s for the job, with the driver's start")
print(
    f"  {len(tasks)} executors, launched from {framework['offers_accepted']} accepted offers"
    f" of {framework['offers_sent']} sent:"
)
for agent, count in sorted(collections.Counter(t["agent_id"] for t in tasks).items()):
    print(f"    {count} on agent {agent}")
