#!/usr/bin/env bash
# Run the programs of docs/languages.md against a fake server, with the compilers that are installed.
# Debian: apt-get install protobuf-compiler nodejs npm golang-go golang-google-grpc-dev \
#     golang-google-protobuf-dev protoc-gen-go protoc-gen-go-grpc default-jdk-headless \
#     protobuf-compiler-grpc-java-plugin libgrpc-java libnetty-java libperfmark-java libprotobuf-java
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT

say() { printf 'languages: %s\n' "$*"; }

missing() {  # missing LANGUAGE PROGRAM...: say what is not installed, if anything
    local language=$1 program
    shift
    for program; do
        command -v "$program" >/dev/null || { say "$language is left out: no $program"; return 0; }
    done
    return 1
}

program() {  # program LANGUAGE NUMBER: print a block of the page
    awk -v fence="\`\`\`$1" -v number="$2" '
        $0 == "```" { on = 0 }
        on { print }
        $0 == fence && ++count == number { on = 1 }' "$root/docs/languages.md"
}

check() {  # check LANGUAGE COMMAND...: compare its output with that of the Python client
    local language=$1
    shift
    diff "$folder/expected" <("$@") || { say "$language answers differently"; exit 1; }
    say "$language agrees"
}

javascript() {
    missing JavaScript node npm && return
    program javascript 1 >query.js
    program javascript 2 >query_rest.mjs
    check "JavaScript over REST" node query_rest.mjs "$rest" 2
    if npm install --silent --no-audit --no-fund --prefix . @grpc/grpc-js @grpc/proto-loader; then
        check "JavaScript over gRPC" node query.js "$grpc" 2
    else
        say "JavaScript over gRPC is left out: npm cannot install it"
    fi
}

go_program() {
    missing Go go protoc protoc-gen-go protoc-gen-go-grpc && return
    mkdir -p gopath/src/query gen
    program bash 1 >generate.sh
    bash -eu generate.sh
    cp -r gen/* gopath/src/
    program go 1 >gopath/src/query/query.go
    GO111MODULE=off GOPATH=$PWD/gopath:/usr/share/gocode GOCACHE=$PWD/cache go build -o query_go query
    # It is not run: gRPC for Go in Debian 12 still decodes with the runtime before its generator's.
    say "Go compiles"
}

java_program() {
    missing Java javac protoc grpc_java_plugin && return
    local jars
    jars=$(find /usr/share/java -name '*.jar' ! -name '*slf4j*' -printf '%p:')
    mkdir -p java classes
    protoc -I . --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin)" --java_out=java \
        --grpc-java_out=java shortlist/clients/wire/*.proto shortlist/clients/wire/services/*.proto
    program java 1 >java/Query.java
    find java -name '*.java' >sources
    javac -nowarn -proc:none -cp "$jars" -d classes @sources 2>javac.log || { cat javac.log; exit 1; }
    check Java java -cp "classes:$jars" Query "$grpc" 2
}

make -s protos
tar -C "$folder" -xzf build/shortlist-protos.tar.gz
.venv/bin/python - "$folder" <<'PYTHON' &
import sys, time
from pathlib import Path
from shortlist import GrpcClient
from shortlist.clients.testing import FakeModel, FakeServer

folder = Path(sys.argv[1])
with FakeServer({"retrieval_ivf": FakeModel()}) as server:
    with GrpcClient(server.grpc_address, model="retrieval_ivf") as client:
        (answer,) = client.retrieve(["2"])
    lines = "".join(f"{candidate} {score:.4f}\n" for candidate, score in answer)
    (folder / "expected").write_text(lines)
    (folder / "addresses.new").write_text(f"{server.grpc_address} {server.rest_address}\n")
    (folder / "addresses.new").rename(folder / "addresses")
    time.sleep(600)
PYTHON
server=$!
cd "$folder"
for _ in $(seq 300); do [ -f addresses ] && break; sleep 0.1; done
read -r grpc rest <addresses
javascript
go_program
java_program
