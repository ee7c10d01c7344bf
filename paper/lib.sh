# shellcheck shell=bash disable=SC2034
# Shared by paper/reproduce, tests/run and .ci/run: the packages on Debian 12, and the build.
# Sourced with the top folder as the working directory.

run_packages=(gcc libc6-dev make cmake pkg-config libblis-openmp-dev libhdf5-dev libjansson-dev
    libmd-dev librandom123-dev libpcre2-dev libsqlite3-dev libutf8proc-dev gnuplot-nox fonts-dejavu-core)
article_packages=(texlive-latex-base texlive-latex-recommended texlive-fonts-recommended)
test_packages=(libcmocka-dev python3 python3-numpy python3-h5py hdf5-tools parallel libopenmpi-dev
    openmpi-bin)
ci_packages=(clang libomp-dev clang-format shellcheck git python3-torch sentencepiece)

die() {
    echo "${0##*/}: $1" >&2
    [[ -z ${2-} ]] || echo "hint: $2" >&2
    exit 1
}

# need INSTALL PACKAGE...: installs those that are missing, or refuses when INSTALL is "no".
need() {
    local install=$1 missing=() as_root=() package
    shift
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        die "this is not Debian: packages cannot be checked or installed by their names there" \
            "install the like of: $*; then: cmake -B build -DPB_TESTS=OFF && cmake --build build"
    fi
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed* ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || as_root=(sudo)
    local command="apt-get install -y --no-install-recommends ${missing[*]}"
    command="${as_root[*]:+sudo }apt-get update && ${as_root[*]:+sudo }$command"
    [[ $install == yes ]] || die "missing packages: ${missing[*]}" "$command"
    ((EUID == 0)) || command -v sudo >/dev/null ||
        die "missing packages, and neither root nor sudo to install them: ${missing[*]}" \
            "let an administrator run: ${command//sudo /}"
    echo "Installing ${missing[*]}" >&2
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q)
    mkdir -p build
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
        >build/install.log 2>&1 </dev/null; then
        tail -n 10 build/install.log >&2
        die "apt-get failed; all of its output is in build/install.log" "$command"
    fi
}

# build FOLDER CMAKE-ARGUMENT... [-- BUILD-ARGUMENT...]: configures and builds; says more only when
# that fails.
build() {
    local folder=$1 configure=()
    shift
    while (($#)) && [[ $1 != -- ]]; do
        configure+=("$1")
        shift
    done
    (($#)) && shift
    mkdir -p "$folder"
    echo "Building into $folder/" >&2
    if ! { cmake "${configure[@]}" -B "$folder" &&
        cmake --build "$folder" --parallel "$(nproc)" "$@"; } >"$folder/build.log" 2>&1; then
        grep -A 5 -E 'error:|Error' "$folder/build.log" | head -n 40 >&2 ||
            tail -n 40 "$folder/build.log" >&2
        die "the build failed; all of its output is in $folder/build.log"
    fi
}
