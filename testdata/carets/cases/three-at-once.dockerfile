FROM $A
COPY --from=9 a b
FROM --platform=x/y/z/w scratch
FROM Bad/Name
