"""A child that makes no calls: it only says how long they took."""

MESSAGE, CALL = 100e-6, 50e-6


class Said:
    """A child whose calls take so long, for one of them that is asked for after the other."""

    def __init__(self, *call_seconds, cores=None, judged="ok"):
        self.calls, self.cores, self.verdict = list(call_seconds), cores, judged
        self.iterations = 0
        self.asked = []

    def ask(self, name, *arguments):
        self.asked.append(name)
        if name == "ready":
            self.iterations = arguments[-1]
        if name == "judged":
            return {"status": self.verdict, "reason": "wrong: dx off"}
        seconds = self.iterations * (self.calls.pop(0) if len(self.calls) > 1 else self.calls[0]) if name == "go" else 0
        return {"status": "ok", "child_seconds": MESSAGE + seconds}

    def processor_seconds(self):
        return 0.0

    def cores_of_helpers(self, _):
        return self.cores
