"""J6: an installed wheel where nothing but the output folder can be written, in the plainest locale."""

from __future__ import annotations

import pytest

from tests.installs import full_environment, need_index
from tests.test_install import check_demo


@pytest.mark.timeout(900)
def test_j6_demo_without_home_tmpdir_or_locale(tmp_path):
    need_index()
    done = full_environment().run(
        "visionkit",
        "demo",
        "--out",
        tmp_path / "demo",
        cwd=tmp_path,
        HOME="/dev/null",  # no folder, so that root cannot write there either
        XDG_CACHE_HOME="/dev/null/cache",
        TMPDIR="/nonexistent/tmp",
        LANG="C",
        LC_ALL="C",
    )
    check_demo(done, tmp_path / "demo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]
