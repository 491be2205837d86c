# escape=`
FROM scratch
COPY --chown=1 `
  --chmod=9 a b
