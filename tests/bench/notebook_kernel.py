"""A stock IPython kernel, driven as a front-end does."""

from contextlib import contextmanager

from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import KernelManager

PATIENCE = 120


class Kernel:
    """
    A kernel that runs.

    Attributes:
        manager, client: jupyter_client's.
    """

    def __init__(self, **options):
        specs = KernelSpecManager(kernel_dirs=[])
        self.manager = KernelManager(
            kernel_name=NATIVE_KERNEL_NAME, kernel_spec_manager=specs, **options
        )
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    @property
    def pid(self):
        return self.manager.provisioner.process.pid

    def run(self, code, on_text=None):
        """Run a cell; returns what it printed, or hands each piece to ``on_text``."""
        pieces = []
        take = on_text or pieces.append

        def hook(message):
            if message["msg_type"] == "stream":
                take(message["content"]["text"])
            elif message["msg_type"] == "execute_result":
                take(message["content"]["data"]["text/plain"])

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=PATIENCE)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(pieces)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextmanager
def kernel():
    """A fresh stock kernel that has run a first cell."""
    running = Kernel()
    try:
        running.run("pass")
        yield running
    finally:
        running.close()
