"""What the peers' scripts share: the protocol of harness/bench/peer.h."""
import json
import os
import subprocess
import sys
import time


class Absent(Exception):
    """Why the work cannot be done."""


def say(**answer):
    print(json.dumps(answer), flush=True)


def timed(run):
    """From a function that does the work once, one that does it several times and returns the
    seconds."""
    def sample(warm, runs):
        if warm:
            run()
        t = time.perf_counter()
        for _ in range(runs):
            run()
        return time.perf_counter() - t
    return sample


def serve(prepare):
    """prepare(request) -> (sample, answer): sample(warm, runs) -> seconds; what is said when ready."""
    try:
        sample, answer = prepare(json.loads(sys.stdin.readline()))
    except (Absent, OSError) as e:  # such as a full disk
        say(absent=str(e))
        return
    say(**answer)
    for line in sys.stdin:
        ask = json.loads(line)
        say(seconds=sample(ask["warm"], ask["runs"]))


def not_installed(package):
    sys.stdin.readline()
    say(absent="%s is not installed" % package)
    sys.exit(0)


def build_folder(variable, option):
    """The folder of a build that the user made."""
    folder = os.environ.get(variable)
    if not folder:
        raise Absent("no build was named: %s DIR, or %s of the environment" % (option, variable))
    if not os.path.isdir(folder):
        raise Absent("%s is no folder" % folder)
    return folder


def commit(folder):
    p = subprocess.run(["git", "-C", folder, "rev-parse", "--short=10", "HEAD"],
                       capture_output=True, text=True)
    return p.stdout.strip() if p.returncode == 0 else "of an unknown commit"
