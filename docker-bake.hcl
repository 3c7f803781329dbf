# The base images: `docker buildx bake` builds org/ml-runtime:cpu and :cuda; `make images` does it with this commit's revision.
# Variables are set in the environment.

variable "REGISTRY" { default = "org" }
variable "VERSION" { default = "0.1.0" }
# Another distribution, or another Python together with its version (images/README.md).
variable "BASE_IMAGE" { default = "debian:trixie-slim" }
variable "PYTHON" { default = "3.13" }
# More packages, by the names of images/requirements/extra-*.txt with blanks between, such as "convert boosters".
variable "EXTRAS" { default = "" }
# For the labels: where the source code is, its commit, and the time in RFC 3339, by default now.
variable "SOURCE" { default = "" }
variable "REVISION" { default = "" }
variable "CREATED" { default = "" }

# A model depends on the minor version of scikit-learn that made it, so tags name it. :cpu and :cuda have the first of these. Each has
# its lock files in images/requirements.
variable "SKLEARN_LINES" { default = ["1.9", "1.8"] }

# --- what to build ----------------------------------------------------------------------------------------------------

group "default" {
  targets = ["cpu", "cuda"]
}

# Pushes every image, and writes its CycloneDX document to dist/sbom.
group "release" {
  targets = ["push", "sbom"]
}

target "cpu" {
  inherits = [name("cpu", SKLEARN_LINES[0])]
}

target "cuda" {
  inherits = [name("cuda", SKLEARN_LINES[0])]
}

target "line" {
  matrix   = { device = ["cpu", "cuda"], sklearn = SKLEARN_LINES }
  name     = name(device, sklearn)
  inherits = ["_image", "docker-metadata-action"]
  args     = { DEVICE = device, SKLEARN = sklearn }
  labels   = { "org.opencontainers.image.title" = "ml-runtime ${device}, scikit-learn ${sklearn}" }
  tags     = tags(device, sklearn)
}

target "push" {
  matrix   = { device = ["cpu", "cuda"], sklearn = SKLEARN_LINES }
  name     = "push-${name(device, sklearn)}"
  inherits = [name(device, sklearn), "_release"]
  attest   = ["type=sbom", "type=provenance,mode=max"]
  output   = ["type=registry"]
}

target "sbom" {
  matrix   = { device = ["cpu", "cuda"], sklearn = SKLEARN_LINES }
  name     = "sbom-${name(device, sklearn)}"
  inherits = ["_image", "_release"]
  target   = "sbom"
  args     = { DEVICE = device, SKLEARN = sklearn, IMAGE = line_tag(device, sklearn) }
  output   = ["type=local,dest=dist/sbom"]
}

target "_release" {
  platforms = ["linux/amd64", "linux/arm64"]
}

# The two lines that a user writes, upon the image that this very command builds.
target "downstream" {
  context  = "examples/iris"
  contexts = { "org/ml-runtime:cpu" = "target:cpu" }
  tags     = ["iris"]
}

# --- what they share --------------------------------------------------------------------------------------------------

# docker/metadata-action writes a file that fills this in: its labels go before ours. The tags stay ours, since one list cannot
# be that of two images; give the action's version as VERSION.
target "docker-metadata-action" {}

target "_image" {
  dockerfile = "images/Dockerfile"
  args       = { BASE_IMAGE = BASE_IMAGE, PYTHON = PYTHON, EXTRAS = EXTRAS }
  labels = merge(
    {
      "org.opencontainers.image.description" = "A directory with a model in, a fast and honest HTTP service out"
      "org.opencontainers.image.version"     = VERSION
      "org.opencontainers.image.created"     = CREATED != "" ? CREATED : timestamp()
      "org.opencontainers.image.licenses"    = "Apache-2.0"
      "org.opencontainers.image.base.name"   = BASE_IMAGE
    },
    REVISION != "" ? { "org.opencontainers.image.revision" = REVISION } : {},
    SOURCE != "" ? { "org.opencontainers.image.source" = SOURCE } : {},
  )
}

function "name" {
  params = [device, sklearn]
  result = "${device}-sklearn${replace(sklearn, ".", "-")}"
}

# An image with more in it has another name.
function "with_extras" {
  params = [tag]
  result = join("-", compact([tag, replace(EXTRAS, " ", "-")]))
}

function "line_tag" {
  params = [device, sklearn]
  result = "${REGISTRY}/ml-runtime:${with_extras("${VERSION}-${device}-py${PYTHON}-sklearn${sklearn}")}"
}

function "tags" {
  params = [device, sklearn]
  result = concat(
    sklearn == SKLEARN_LINES[0] ? [
      "${REGISTRY}/ml-runtime:${with_extras(device)}",
      "${REGISTRY}/ml-runtime:${with_extras("${VERSION}-${device}")}",
    ] : [],
    [line_tag(device, sklearn)],
  )
}
