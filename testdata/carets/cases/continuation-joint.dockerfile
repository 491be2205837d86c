FROM scratch
COPY --fr\
om=9 a b
