"""The processes that other tests start are as a user's own."""

import os
import signal
from pathlib import Path

import pytest

from tests.processes import ROOT, Forked, run, start


def test_a_process_is_a_fresh_one_but_for_torch(monkeypatch):
    monkeypatch.setenv("OF_THE_TEST", "here")
    output = run(
        """
        import os, sys
        ours = [name for name in sys.modules if name.split(".")[0] in ("kernels", "models", "bench", "triton")]
        print(ours, os.environ["OF_THE_TEST"], os.environ["GIVEN"], os.getcwd(), sys.argv, __name__)
        """,
        GIVEN=1,
    )
    assert output.split() == ["[]", "here", "1", str(ROOT), "['-c']", "__main__"]


def test_a_module_gets_its_arguments_and_its_exit_code_counts():
    code, output = start("-m", "json.tool", "--wrong").wait()
    assert code == 2
    assert "unrecognized arguments: --wrong" in output


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(3)", 3), ("os._exit(4)", 4), ("1 / 0", 1), ("pass", 0)])
def test_its_end_is_reported(ends, code):
    found, output = start("-c", f"import os, sys; print('said', flush=True); {ends}").wait()
    assert found == code
    assert output.startswith("said")
    assert ("ZeroDivisionError" in output) == (code == 1)


def test_it_hears_signals_and_one_that_takes_too_long_is_killed():
    waits = "import time; time.sleep(60)"
    process = start("-c", waits)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == (-signal.SIGTERM, "")
    process.send_signal(signal.SIGTERM)  # nobody is hit
    assert start("-c", waits).wait(timeout=0.1) == (-signal.SIGKILL, "")


def test_its_code_is_the_main_module():
    output = run("""
        import pickle, sys
        class Made:
            pass
        print(type(pickle.loads(pickle.dumps(Made()))) is Made is sys.modules["__main__"].Made)
    """)
    assert output == "True\n"


def test_what_is_to_run_at_exit_runs():
    assert run("import atexit; atexit.register(print, 'bye')") == "bye\n"


def tell(writer, name):
    writer.send((os.getppid(), os.environ.get(name), str(Path.cwd())))
    os._exit(3)


def test_a_forked_child_has_what_a_spawned_one_has(monkeypatch, tmp_path):
    monkeypatch.setenv("OF_THE_TEST", "here")
    monkeypatch.chdir(tmp_path)
    reader, writer = Forked.Pipe(duplex=False)
    process = Forked.Process(target=tell, args=(writer, "OF_THE_TEST"))
    process.start()
    assert reader.recv() == (os.getpid(), "here", str(tmp_path))
    process.join()
    assert process.exitcode == 3
