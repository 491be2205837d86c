#: --platform linux/arm64
FROM --platform=$BUILDPLATFORM golang AS build
ARG TARGETARCH TARGETPLATFORM BUILDARCH
RUN go build -o /out
FROM alpine
COPY --from=build /out /out
