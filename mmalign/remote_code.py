"""What libraries are told about Python that comes with weights; a file of its own, since it imports transformers."""

from mmalign.trust import demand, loaded, trusted


def remote_code() -> bool:
    """The ``trust_remote_code`` of transformers, diffusers and open_clip for what is being loaded; nobody is asked."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # else a question is put on the terminal
    if not trusted(loaded()):
        return False
    demand(loaded(), "Python code that comes with its weights may run")
    return True
