# shellcheck shell=bash
# Sourced, never run: the virtual environments, and the two ways to speak. Knows nothing of the box that runs in one.
# Expects `root`, the checkout's folder.

# The Pythons that pyproject.toml allows, in the order they are tried.
PYTHONS=(python3.11 python3.12 python3.13 python3)

# A user's Python settings belong to other programs, and `pip --user` means nothing inside an environment.
unset PYTHONHOME PYTHONPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$@"; } # each argument a line

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit "${2:-1}"
}

python_is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# Prints the first usable Python; a name on the PATH that does not start (a version manager's shim) is passed over.
find_python() {
    local name path without_venv=""
    for name in "${PYTHONS[@]}"; do
        path=$(command -v "$name") || continue
        python_is_supported "$path" || continue
        if "$path" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$path"
            return
        fi
        without_venv=${without_venv:-$path}
    done
    if [ -n "$without_venv" ]; then
        local version
        version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        die "$without_venv cannot make virtual environments. Install its venv package and run this again (Debian and Ubuntu: sudo apt install python$version-venv)."
    fi
    die "Python 3.11, 3.12 or 3.13 is needed and none was found. Install one and run this again (Debian and Ubuntu: sudo apt install python3 python3-venv; Fedora: sudo dnf install python3.13)."
}

digest() { sha256sum | cut -d ' ' -f 1; }

torch_requirement() {
    local requirement
    requirement=$(sed -n 's/^ *"\(torch==[^"]*\)",$/\1/p' "$root/pyproject.toml")
    [ -n "$requirement" ] || die "pyproject.toml names no exact torch version."
    printf '%s\n' "$requirement"
}

# What a finished environment's stamp says: where it lies (environments cannot be moved) and what it was made from.
environment_stamp() {
    local venv=$1 lock
    shift
    printf '%s\n' "$venv"
    for lock in "$@" pyproject.toml; do
        digest <"$root/$lock"
    done
}

# The index is kept as a digest: its URL may hold a password.
torch_stamp() { printf '%s %s\n' "$(torch_requirement)" "$(printf '%s' "$1" | digest)"; }

# No wish for an index accepts the torch that is there, wherever it came from.
torch_is_wanted() {
    local venv=$1 index=$2 have
    have=$(cat "$venv/zsky-torch" 2>/dev/null) || return 1
    [ "${have% *}" = "$(torch_requirement)" ] || return 1
    [ -z "$index" ] || [ "$have" = "$(torch_stamp "$index")" ]
}

# environment_is_current VENV TORCH_INDEX LOCK...
environment_is_current() {
    local venv=$1 index=$2
    shift 2
    [ ! -e "$venv/zsky-unfinished" ] && python_is_supported "$venv/bin/python" && torch_is_wanted "$venv" "$index" &&
        [ "$(cat "$venv/zsky-stamp" 2>/dev/null)" = "$(environment_stamp "$venv" "$@")" ]
}

# Removes an environment that cannot be trusted: pip that was stopped half-way counts half a package as installed.
remove_unusable_environment() {
    local venv=$1
    [ -d "$venv" ] || return 0
    if [ -e "$venv/zsky-unfinished" ]; then
        say "An earlier installation did not finish: making ${venv##*/} anew."
    elif ! python_is_supported "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        say "${venv##*/} has no working Python: making it anew."
    elif [ -e "$venv/zsky-stamp" ] && [ "$(head -n 1 "$venv/zsky-stamp")" != "$venv" ]; then
        say "This folder was moved: making ${venv##*/} anew."
    else
        return 0
    fi
    rm -rf "$venv"
}

# torch goes first and apart: its CPU and CUDA builds differ in what they need, so no lock file can hold both.
install_torch() {
    local venv=$1 index=$2 from=()
    torch_is_wanted "$venv" "$index" && return
    [ -z "$index" ] || from=(--index-url "$index")
    say "Installing $(torch_requirement) (the largest download) ..."
    if [ -e "$venv/zsky-torch" ]; then # pip takes any build of this version for the one that is asked for
        rm "$venv/zsky-torch"
        "$venv/bin/python" -m pip uninstall --quiet --yes torch
    fi
    "$venv/bin/python" -m pip install --no-input "${from[@]}" "$(torch_requirement)"
    torch_stamp "$index" >"$venv/zsky-torch"
}

# make_environment VENV TORCH_INDEX LOCK...: quick when there is nothing to do, and repairs what was interrupted.
make_environment() {
    local venv=$1 index=$2 python lock files=()
    shift 2
    environment_is_current "$venv" "$index" "$@" && return
    remove_unusable_environment "$venv"
    if [ ! -d "$venv" ]; then
        python=$(find_python)
        say "Making ${venv##*/} with $("$python" -V) ..."
        mkdir "$venv"
        : >"$venv/zsky-unfinished"
        "$python" -m venv "$venv"
    fi
    : >"$venv/zsky-unfinished"
    install_torch "$venv" "$index"
    for lock in "$@"; do
        files+=(-r "$root/$lock")
    done
    say "Installing the locked packages ..."
    "$venv/bin/python" -m pip install --no-input --quiet --require-hashes "${files[@]}"
    "$venv/bin/python" -m pip install --no-input --quiet --no-deps --no-build-isolation --editable "$root"
    "$venv/bin/python" -m pip check --quiet
    environment_stamp "$venv" "$@" >"$venv/zsky-stamp"
    rm "$venv/zsky-unfinished"
}
